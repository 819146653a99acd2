"""`morvit-deploy doctor`."""

from __future__ import annotations

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, working
from morvit_deploy.cli.shared.groups import Json
from morvit_deploy.errors import CheckFailed


@command("doctor", "morvit-deploy doctor", "morvit-deploy doctor --json > machine.json")
def doctor(json: Json = False) -> None:
    """Import each library, and report what this machine can export, run and measure, and what to install."""
    from morvit_deploy.machine.diagnosis import doctor as diagnose
    from morvit_deploy.machine.views import doctor_report

    with working("importing libraries"):
        found = diagnose()
    emit(doctor_report(found), found.as_dict(), json)
    unusable = [*found.missing, *(library for library in found.broken if not library.extra)]
    if unusable:
        names = ", ".join(f"{library.name} ({library.state})" for library in unusable)
        raise CheckFailed(f"required libraries cannot be used: {names}; run\n  {found.install['core']}")
