"""`morvit-deploy verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, note, warn, working
from morvit_deploy.cli.shared.groups import VERIFICATION, Bundle, Force, Json, Page, Threads, Verification
from morvit_deploy.cli.shared.pages import check_page, with_command, write_page
from morvit_deploy.cli.shared.places import bundle_folder
from morvit_deploy.cli.shared.sources import AlsoForeign, opened
from morvit_deploy.exporters.options import Help
from morvit_deploy.machine.extras import install_line, is_missing

if TYPE_CHECKING:
    from morvit_deploy.report import Report


@command("verify", "morvit-deploy verify build/my-model-onnx --checkpoint my-model --images photos")
def verify(
    bundle: Bundle = None,
    *,
    checkpoint: Annotated[
        Path | None, Help("The checkpoint that BUNDLE was made from.", panel=VERIFICATION)
    ] = None,
    compared: Verification,
    threads: Threads = None,
    report: Page = None,
    force: Force = False,
    json: Json = False,
    foreign: AlsoForeign,
) -> None:
    """Verify a bundle against its checkpoint: structure, routing gap, conversion gap, router agreement.

    Without PyTorch and without --checkpoint: manifest, hashes, and whether the bundle runs.
    """
    compared.check()
    folder = bundle_folder(bundle)
    check_page(report, force=force, inputs=(folder, checkpoint, compared.images))
    if (
        is_missing("torch")
        and (checkpoint, compared.images, compared.min_agreement, compared.reference) == (None,) * 4
    ):
        write_page(report, with_command(_check_alone(folder, threads, json)), force=force)
        return
    with opened(checkpoint, foreign) as source:
        said = compared.say(source.folder)
        with working("loading PyTorch") as (tell, progress):
            from morvit_deploy.exporters.verification import DEFAULT_LIMIT
            from morvit_deploy.exporters.verification import verify as run

            verification = run(
                folder, source.folder, images=compared.images, limit=compared.limit or DEFAULT_LIMIT,
                threads=threads, upscale=compared.upscale, exif=compared.exif,
                min_agreement=compared.min_agreement, reference=compared.reference, tell=tell, progress=progress,
            )  # fmt: skip  # three lines read better than nine
        compared.remark_on_limit(source.folder, verification.images)
    if verification.synthetic:
        note("no --images given; compared on synthetic pictures")
    warn(verification.warnings)
    if not verification.same_checkpoint:
        note("the bundle was made from other files than this checkpoint's (sha256 differs)")
    emit(verification.report(), verification.as_dict() | {"images_read": said}, json)
    write_page(report, with_command(verification.report(), verification.warnings), force=force)
    if not verification.passed:
        from morvit_deploy.errors import ParityError, PrecisionError

        error = PrecisionError if verification.only_gate_missed else ParityError
        raise error(verification.failure)


def _check_alone(folder: Path, threads: int | None, as_json: bool) -> Report:
    """What needs no checkpoint; a note says what was not checked, and what it takes."""
    from morvit_deploy.exporters.check import check_bundle

    found = check_bundle(folder, threads=threads)
    emit(found.report(), found.as_dict(), as_json)
    warn(found.warnings)
    note(f"not compared with a checkpoint; run `{install_line('export')}` and give --checkpoint")
    return found.report()
