"""`morvit-deploy doctor`."""

from __future__ import annotations

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit
from morvit_deploy.cli.shared.groups import Json
from morvit_deploy.errors import CheckFailed


@command("doctor", "morvit-deploy doctor", "morvit-deploy doctor --json > machine.json")
def doctor(json: Json = False) -> None:
    """Report what this machine can export, run and measure, and how to install what is missing."""
    from morvit_deploy.machine.diagnosis import doctor as diagnose
    from morvit_deploy.machine.views import doctor_report

    found = diagnose()
    emit(doctor_report(found), found.as_dict(), json)
    if found.missing:
        names = ", ".join(library.name for library in found.missing)
        raise CheckFailed(f"missing: {names}; run\n  {found.install['core']}")
