"""`morvit-deploy predict`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import (
    JsonOption,
    ThreadsOption,
    UpscaleOption,
    bundle_folder,
    emit,
    stages,
    stderr,
    warn,
)
from morvit_deploy.errors import ImageError, TargetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from morvit_deploy.agent.core.running import Arrays
    from morvit_deploy.bundle.manifest import Manifest
    from morvit_deploy.bundle.pixels import Pixels
    from morvit_deploy.bundle.session import Session


@command("predict")
def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[BUNDLE] IMAGE", help="A bundle folder (default: the newest under build/) and images."
        ),
    ],
    logits: Annotated[bool, typer.Option("--logits", help="Print the logits too.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 5,
    depth_map: Annotated[
        Path | None,
        typer.Option(
            "--depth-map",
            help="Folder for a picture of each image's token depths (bundle exported --with-depth).",
            show_default=False,
        ),
    ] = None,
    threads: ThreadsOption = None,
    upscale: UpscaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Classify images with a bundle; no PyTorch is loaded."""
    bundle, images = _split(paths)
    import numpy as np

    from morvit_deploy.bundle.views import prediction_table
    from morvit_deploy.exporters.targets import find_target, open_bundle
    from morvit_deploy.report import Report

    warning = ""
    with stages("opening the bundle") as tell, open_bundle(bundle, threads=threads) as session:
        has_depth = any(port.name == "depth" for port in session.manifest.outputs)
        if depth_map is not None and not has_depth:
            raise TargetError(f"{bundle} answers no depth; export it again with --with-depth")
        pixels = np.stack([session.read(path, upscale=upscale) for path in images])
        tell(f"running {len(images)} images")
        outputs = session.run(pixels)
        runtime = session.runner.runtime
        rows = zip(images, outputs["logits"], _buckets(session, outputs), strict=True)
        answers = [_answer(session, path, row, bucket, top, logits) for path, row, bucket in rows]
        if depth_map is not None:
            tell("drawing depth maps")
            warning = _draw(depth_map, images, pixels, outputs["depth"], session.manifest, answers)
    if find_target(session.manifest.target).names_runtime:
        stderr().print(f"note: answered by {runtime}", markup=False, highlight=False)
    emit(Report("Predictions", [prediction_table(answers, with_logits=logits)]), answers, as_json)
    if depth_map is not None:
        stderr().print(f"depth maps in {depth_map}", markup=False, highlight=False)
    warn((*session.warnings, *([warning] if warning else [])))


def _buckets(session: Session, outputs: Arrays) -> list[str]:
    """The bucket that ran each image."""
    names = [bucket.name for bucket in session.manifest.plan.buckets]
    return [names[i] for i in outputs.get("bucket", [0] * len(outputs["logits"]))]


def _answer(
    session: Session, path: Path, row: NDArray[np.float32], bucket: str, top: int, with_logits: bool
) -> dict[str, Any]:
    """One image's entry of `predict --json`."""
    answer: dict[str, Any] = {
        "image": str(path),
        "bucket": bucket,
        "top": [asdict(guess) for guess in session.guesses(row, top)],
    }
    return answer | {"logits": [float(value) for value in row]} if with_logits else answer


def _draw(
    folder: Path,
    images: list[Path],
    pixels: Pixels,
    depth: NDArray[np.integer[Any]],
    manifest: Manifest,
    answers: list[dict[str, Any]],
) -> str:
    """Draw each image's depth map, note its file in its entry, and assess the routing: a warning, or nothing."""
    from morvit_deploy.inspecting.degeneracy import assess
    from morvit_deploy.inspecting.depth_maps import draw_all

    config, plan = manifest.config, manifest.plan
    titles = [f"read as {answer['top'][0]['label']}" for answer in answers]
    drawn = draw_all(folder, images, pixels, depth, config.num_steps, titles)
    for answer, picture in zip(answers, drawn, strict=True):
        answer["depth_map"] = str(picture)
    if not config.record.routes:
        return ""
    schedule = plan.buckets[0].capacity if plan.mode == "topk" else None
    assessment = assess(depth, config.num_steps, capacity=schedule)
    return assessment.warning if assessment.degenerate else ""


def _split(paths: list[Path]) -> tuple[Path, list[Path]]:
    """A first path that is a folder is the bundle."""
    for path in paths:
        if not os.path.exists(path):  # noqa: PTH110  # False for a name that is too long, too
            raise ImageError(f"{path} does not exist")
    bundle, images = (paths[0], paths[1:]) if paths[0].is_dir() else (None, paths)
    if not images:
        raise ImageError("no IMAGE given; name one or more image files")
    return bundle_folder(bundle), images
