"""`morvit-deploy doctor`."""

from __future__ import annotations

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import JsonOption, emit
from morvit_deploy.errors import CheckFailed


@command("doctor")
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can export, run and measure, and how to install what is missing."""
    from morvit_deploy.machine.diagnosis import doctor as diagnose
    from morvit_deploy.machine.views import doctor_report

    found = diagnose()
    emit(doctor_report(found), found.as_dict(), as_json)
    if found.missing:
        names = ", ".join(library.name for library in found.missing)
        raise CheckFailed(f"missing: {names}; run\n  {found.install['core']}")
