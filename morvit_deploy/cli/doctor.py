"""`morvit-deploy doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, working
from morvit_deploy.cli.shared.derived import Arg
from morvit_deploy.cli.shared.groups import Json
from morvit_deploy.errors import CheckFailed


@command(
    "doctor",
    "morvit-deploy doctor",
    "morvit-deploy doctor build/my-model-onnx",
    "morvit-deploy doctor --json > machine.json",
)
def doctor(
    bundle: Annotated[Path | None, Arg("A bundle: report whether it runs here, too.", "BUNDLE")] = None,
    *,
    json: Json = False,
) -> None:
    """Import each library, and report what this machine can export, run and measure, and what to install.

    Exit status: 1 when a required library cannot be used, or BUNDLE does not run here.
    """
    from morvit_deploy.cli.shared.places import bundle_folder
    from morvit_deploy.machine.diagnosis import doctor as diagnose
    from morvit_deploy.machine.views import doctor_report

    with working("importing libraries"):
        found = diagnose(None if bundle is None else bundle_folder(bundle))
    emit(doctor_report(found), found.as_dict(), json)
    unusable = [*found.missing, *(library for library in found.broken if not library.extra)]
    if unusable:
        names = ", ".join(f"{library.name} ({library.state})" for library in unusable)
        raise CheckFailed(f"required libraries cannot be used: {names}; run\n  {found.install['core']}")
    if found.bundle is not None and found.bundle.problems:
        raise CheckFailed(f"{bundle} does not run here: {'; '.join(found.bundle.problems)}")
