"""`morvit-deploy predict`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import Share, Tell, emit, note, warn, working
from morvit_deploy.cli.shared.derived import Arg, Group
from morvit_deploy.cli.shared.groups import Json, Threads, Upscale
from morvit_deploy.cli.shared.places import bundle_folder
from morvit_deploy.errors import CheckFailed, ImageError, TargetError
from morvit_deploy.exporters.options import Help
from morvit_deploy.files import check_outside

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from morvit_deploy.bundle.pixels import Pixels
    from morvit_deploy.bundle.session import Session


@dataclass(frozen=True)
class Shown(Group):
    """What is shown of each image."""

    panel = "Predictions"
    top: Annotated[int, Help("Classes to show for each image.", least=1, show_default=True)] = 5
    logits: Annotated[bool, Help("Also print the logits.")] = False
    depth_map: Annotated[
        Path | None,
        Help(
            "Folder for a picture of each image's token depths (needs a bundle exported --with-depth).", "DIR"
        ),
    ] = None
    upscale: Upscale = False
    threads: Threads = None


@dataclass
class Predictions:
    """Entries of the images that could be read, what is needed to draw their depth, and why others could not."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    pixels: list[Pixels] = field(default_factory=list)
    depth: list[NDArray[Any]] = field(default_factory=list)


@command(
    "predict",
    "morvit-deploy predict photo.jpg",
    "morvit-deploy predict build/my-model-onnx photos/ other.png --json",
)
def predict(
    paths: Annotated[
        tuple[Path, ...],
        Arg(
            "A bundle folder (default: the newest under build/), then images, or folders of images.",
            "[BUNDLE] IMAGE...",
        ),
    ],
    *,
    shown: Shown,
    json: Json = False,
) -> None:
    """Classify images with a bundle; PyTorch is not loaded.

    An image that cannot be read is reported, and the others are still classified. Exit status: 1 when some images
    could not be read, 2 when none could.
    """
    bundle, images = _split(paths)
    if shown.depth_map is not None:
        for path in paths:
            check_outside(shown.depth_map, None if path == bundle else path)
    from morvit_deploy.bundle.views import prediction_table
    from morvit_deploy.exporters.targets import find_target, open_bundle
    from morvit_deploy.report import Report

    warning = ""
    with working("opening the bundle") as (tell, progress):
        with open_bundle(bundle, threads=shown.threads) as session:
            has_depth = any(port.name == "depth" for port in session.manifest.outputs)
            if shown.depth_map is not None and not has_depth:
                raise TargetError(f"{bundle} returns no depth; export it again with --with-depth")
            found = _run(session, images, shown, tell, progress)
        if shown.depth_map is not None:
            tell("drawing depth maps")
            warning = _draw(shown.depth_map, found, session)
    if find_target(session.manifest.target).names_runtime:
        note(f"answered by {session.runner.runtime}")
    data = {"predictions": found.entries, "errors": found.errors}
    emit(Report("Predictions", [prediction_table(found.entries, with_logits=shown.logits)]), data, json)
    if shown.depth_map is not None:
        note(f"the depth maps are in {shown.depth_map}")
    warn([*session.warnings, *([warning] if warning else [])])
    if found.errors:
        warn(f"skipped: {one['error']}" for one in found.errors)
        raise CheckFailed(f"{len(found.errors)} of {len(images)} images could not be read")


def _run(session: Session, images: list[Path], shown: Shown, tell: Tell, progress: Share) -> Predictions:
    """Read and classify a few images at a time, so that memory stays constant; ImageError where none can be read."""
    from morvit_deploy.agent.core.running import AT_A_TIME
    from morvit_deploy.exporters.prediction import classified

    found = Predictions()
    for start in range(0, len(images), AT_A_TIME):
        tell(f"classifying images, {start} of {len(images)}")
        read: dict[Path, Pixels] = {}
        for path in images[start : start + AT_A_TIME]:
            try:
                read[path] = _read(session, path, shown.upscale)
            except ImageError as error:
                found.errors.append({"image": str(path), "error": str(error)})
        for one in classified(session, [*read], [*read.values()], shown.top, shown.upscale) if read else ():
            logits = {"logits": [float(value) for value in one.logits]} if shown.logits else {}
            found.entries.append(one.as_dict() | logits)
            if shown.depth_map is not None and one.depth is not None:
                found.pixels.append(read[one.image])
                found.depth.append(one.depth)
        progress(min(1.0, (start + AT_A_TIME) / len(images)))
    if not found.entries:
        reasons = [one["error"] for one in found.errors]
        raise ImageError(
            reasons[0] if len(reasons) == 1 else "no image could be read:\n  " + "\n  ".join(reasons)
        )
    return found


def _read(session: Session, path: Path, upscale: bool) -> Pixels:
    if os.path.isdir(path):  # noqa: PTH112  # others were replaced by what is in them
        raise ImageError(f"{path} is a folder without images")
    return session.read(path, upscale=upscale)


def _draw(folder: Path, found: Predictions, session: Session) -> str:
    """Draw each image's depth map, note its file in its entry, and assess the routing: a warning, or nothing."""
    import numpy as np

    from morvit_deploy.inspecting.degeneracy import assess
    from morvit_deploy.inspecting.depth_maps import draw_all

    config, plan = session.manifest.config, session.manifest.plan
    depth = np.stack(found.depth)
    names = [Path(entry["image"]) for entry in found.entries]
    titles = [f"read as {entry['top'][0]['label']}" for entry in found.entries]
    drawn = draw_all(folder, names, np.stack(found.pixels), depth, config.num_steps, titles)
    for entry, picture in zip(found.entries, drawn, strict=True):
        entry["depth_map"] = str(picture)
    if not config.record.routes:
        return ""
    schedule = plan.buckets[0].capacity if plan.mode == "topk" else None
    assessment = assess(depth, config.num_steps, capacity=schedule)
    return assessment.warning if assessment.degenerate else ""


def _split(paths: tuple[Path, ...]) -> tuple[Path, list[Path]]:
    """The bundle and the images, folders replaced by the images in them.

    A first folder is the bundle if it holds a manifest, or if others follow and it holds no images.
    """
    first, *others = paths
    if not os.path.exists(first):  # noqa: PTH110  # False for a name that is too long, too
        raise ImageError(f"{first} does not exist")
    is_bundle = first.is_dir() and ((first / "manifest.json").exists() or (bool(others) and not _held(first)))
    bundle, given = (first, others) if is_bundle else (None, list(paths))
    if not given:
        raise ImageError("no IMAGE given; name one or more image files or folders")
    return bundle_folder(bundle), [image for path in given for image in _held(path) or [path]]


def _held(path: Path) -> list[Path]:
    """The images in a folder, sorted; none for a file."""
    from morvit_deploy.bundle.images import picture_files

    return picture_files(path) if os.path.isdir(path) else []  # noqa: PTH112  # False for a name that is too long
