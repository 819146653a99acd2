"""`morvit-deploy verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import (
    BundleArg,
    ImagesOption,
    JsonOption,
    LimitOption,
    MinAgreementOption,
    ThreadsOption,
    UpscaleOption,
    bundle_folder,
    check_image_options,
    emit,
    progress_bar,
    remark_on_limit,
    stderr,
    warn,
)
from morvit_deploy.cli.shared.sources import opened, takes_source
from morvit_deploy.machine.extras import install_line, is_missing


@command("verify")
@takes_source
def verify(
    bundle: BundleArg = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="The checkpoint it was made from.", show_default=False)
    ] = None,
    images: ImagesOption = None,
    limit: LimitOption = None,
    min_agreement: MinAgreementOption = None,
    threads: ThreadsOption = None,
    upscale: UpscaleOption = False,
    as_json: JsonOption = False,
    *,
    said: dict[str, Any],
) -> None:
    """Prove a bundle equal to its checkpoint: structure, routing gap, conversion gap, router agreement.

    Without PyTorch and without --checkpoint: manifest, hashes, and whether the bundle runs.
    """
    check_image_options(images, limit, upscale)
    folder = bundle_folder(bundle)
    if is_missing("torch") and checkpoint is None and images is None and min_agreement is None:
        _check_alone(folder, threads, as_json)
        return
    with opened(checkpoint, said) as source:
        with progress_bar() as (tell, progress):
            tell("loading PyTorch")
            from morvit_deploy.exporters.verification import DEFAULT_LIMIT
            from morvit_deploy.exporters.verification import verify as run
            from morvit_deploy.report import Report
            from morvit_deploy.verifying.views import parity_tables, structure_tables

            verification = run(
                folder, source.folder, images=images, limit=limit or DEFAULT_LIMIT, threads=threads, upscale=upscale,
                min_agreement=min_agreement, tell=tell, progress=progress,
            )  # fmt: skip  # two lines read better than nine
        remark_on_limit(images, source.folder, verification.images)
    data = verification.as_dict()
    if verification.synthetic:
        stderr().print("note: no --images given; compared on synthetic pictures")
    warn(verification.warnings)
    if not verification.same_checkpoint:
        stderr().print("note: the bundle was made from other files than this checkpoint's (sha256 differs)")
    emit(Report("Verification", [*structure_tables(data["structure"]), *parity_tables(data)]), data, as_json)
    if not verification.passed:
        from morvit_deploy.errors import ParityError, PrecisionError

        error = PrecisionError if verification.only_gate_missed else ParityError
        raise error(verification.failure)


def _check_alone(folder: Path, threads: int | None, as_json: bool) -> None:
    """What needs no checkpoint; a note says what was not checked, and what it takes."""
    from morvit_deploy.exporters.check import check_bundle

    found = check_bundle(folder, threads=threads)
    emit(found.report(), found.as_dict(), as_json)
    stderr().print(
        f"note: not compared with a checkpoint; run `{install_line('export')}` and give --checkpoint",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
