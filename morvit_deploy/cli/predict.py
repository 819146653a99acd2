"""`morvit-deploy predict`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import Share, Tell, emit, note, warn, working
from morvit_deploy.cli.shared.derived import Arg, Group
from morvit_deploy.cli.shared.groups import Exif, Json, Threads, Upscale
from morvit_deploy.cli.shared.pictures import say_listed
from morvit_deploy.cli.shared.places import bundle_folder
from morvit_deploy.errors import CheckFailed, ImageError, TargetError
from morvit_deploy.exporters.options import Help
from morvit_deploy.files import check_files, check_outside, is_ours, no_file, write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from morvit_deploy.bundle.manifest import Manifest
    from morvit_deploy.bundle.session import Session
    from morvit_deploy.exporters.prediction import Failure, Prediction


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
    features: Annotated[
        Path | None,
        Help(
            "File for what a bundle exported with --output features or tokens returns: a row for each image.",
            "FILE.npy",
        ),
    ] = None
    upscale: Upscale = False
    exif: Exif = False
    threads: Threads = None


@dataclass
class Found:
    """Entries of the images, those without one, and what is needed to draw their depth."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    drawn: list[Prediction] = field(default_factory=list)
    features: list[NDArray[Any]] = field(default_factory=list)


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
    have no prediction, 2 when none could be read.
    """
    bundle, given = _split(paths)
    check_files([path for path in (shown.features,) if path and path.exists()], force=False, replaces=no_file)
    for written in filter(None, (shown.features, shown.depth_map)):
        for path in given:
            check_outside(written, path)
    from morvit_deploy.bundle.views import prediction_table
    from morvit_deploy.exporters.prediction import why_incomplete
    from morvit_deploy.exporters.targets import find_target, open_session
    from morvit_deploy.report import Report

    images, said = say_listed(given, exif=shown.exif)
    warning = ""
    with working("opening the bundle") as (tell, progress):
        with open_session(bundle, threads=shown.threads) as session:
            _check_outputs(bundle, session.manifest, shown)
            found = _run(session, images, shown, tell, progress)
        if not found.entries:
            raise why_incomplete(found.failures)
        if shown.depth_map is not None:
            tell("drawing depth maps")
            warning = _draw(shown.depth_map, found, session)
        if shown.features is not None:
            _write(shown.features, found)
    if find_target(session.manifest.target).names_runtime:
        note(f"answered by {session.runner.runtime}")
    errors = [one.as_dict() for one in found.failures]
    data = {"predictions": found.entries, "errors": errors, "images_read": said}
    emit(Report("Predictions", [prediction_table(found.entries, with_logits=shown.logits)]), data, json)
    _note_files(shown, found)
    warn([*session.warnings, *([warning] if warning else [])])
    if found.failures:
        warn(f"skipped: {one.error}" for one in found.failures)
        raise CheckFailed(str(why_incomplete(found.failures, len(found.entries))).partition(":\n")[0])


def _run(session: Session, images: list[Path], shown: Shown, tell: Tell, progress: Share) -> Found:
    """Classify the images; without depth maps, only entries are kept of them."""
    from morvit_deploy.agent.core.running import AT_A_TIME
    from morvit_deploy.exporters.prediction import Failure, answers

    found = Found()
    for number, one in enumerate(
        answers(session, images, top=shown.top, upscale=shown.upscale, exif=shown.exif)
    ):
        if number % AT_A_TIME == 0:
            tell(f"classifying images, {number} of {len(images)}")
        if isinstance(one, Failure):
            found.failures.append(one)
        else:
            logits = {"logits": [float(value) for value in one.logits]} if shown.logits else {}
            found.entries.append(one.as_dict() | logits)
            found.drawn += [one] if shown.depth_map is not None else []
            found.features += [] if one.features is None else [one.features]
        progress((number + 1) / len(images))
    return found


def _note_files(shown: Shown, found: Found) -> None:
    """Say where depth maps and features are."""
    if shown.depth_map is not None:
        note(f"the depth maps are in {shown.depth_map}")
    if shown.features is not None:
        note(f"{len(found.features)} rows are in {shown.features}, in the order of the table")


def _check_outputs(bundle: Path, manifest: Manifest, shown: Shown) -> None:
    """TargetError for options that do not fit what the bundle returns."""
    output = manifest.output
    has_depth = any(port.name == "depth" for port in manifest.outputs)
    if shown.depth_map is not None and not has_depth:
        raise TargetError(f"{bundle} returns no depth; export it again with --with-depth")
    if output == "logits" and shown.features is not None:
        raise TargetError(
            f"{bundle} returns logits; for features export it again with --output features or tokens"
        )
    if output != "logits" and shown.features is None:
        raise TargetError(f"{bundle} returns {output}, not classes; give --features FILE.npy to write them")
    if output != "logits" and (shown.logits or shown.depth_map is not None):
        raise TargetError(
            f"{bundle} returns {output}; --logits and --depth-map are for bundles that return logits"
        )


def _write(path: Path, found: Found) -> None:
    """Write the features of all images to one .npy file, float32, a row for each entry."""
    import io

    import numpy as np

    content = io.BytesIO()
    np.save(content, np.stack(found.features), allow_pickle=False)
    write_bytes(path, content.getvalue())


def _draw(folder: Path, found: Found, session: Session) -> str:
    """Draw each image's depth map, note its file in its entry, and assess the routing: a warning, or nothing."""
    import numpy as np

    from morvit_deploy.inspecting.degeneracy import assess
    from morvit_deploy.inspecting.depth_maps import draw_all

    config, plan = session.manifest.config, session.manifest.plan
    depth = np.stack([one.depth for one in found.drawn if one.depth is not None])
    pixels = np.stack([one.pixels for one in found.drawn])
    titles = [f"read as {_read_as(entry)}" for entry in found.entries]
    drawn = draw_all(folder, [one.image for one in found.drawn], pixels, depth, config.num_steps, titles)
    for entry, picture in zip(found.entries, drawn, strict=True):
        entry["depth_map"] = str(picture)
    if not config.record.routes:
        return ""
    schedule = plan.buckets[0].capacity if plan.mode == "topk" else None
    assessment = assess(depth, config.num_steps, capacity=schedule)
    return assessment.warning if assessment.degenerate else ""


def _read_as(entry: dict[str, Any]) -> str:
    """The classes that the head decides for."""
    present = entry.get("present", entry["top"][:1])
    return ", ".join(str(guess["label"]) for guess in present) or "no class"


def _split(paths: tuple[Path, ...]) -> tuple[Path, list[Path]]:
    """The bundle, and the images and folders of images.

    A first folder is the bundle if it holds a manifest, or if others follow and it holds no images.
    """
    from morvit_deploy.bundle.listing import list_pictures

    first, *others = paths
    if not os.path.exists(first):  # noqa: PTH110  # False for a name that is too long, too
        raise ImageError(f"{first} does not exist; give a bundle and images, or images alone")
    is_bundle = first.is_dir() and (
        (first / "manifest.json").exists() or (bool(others) and not list_pictures(first).files)
    )
    bundle, given = (first, others) if is_bundle else (None, list(paths))
    if not given:
        raise ImageError("no IMAGE given; name one or more image files or folders")
    folders = [path for path in given if os.path.isdir(path)]  # noqa: PTH112  # False for a name that is too long, too
    if late := [path for path in folders if is_ours(path / "manifest.json")]:
        raise ImageError(f"got the bundle {late[0]} among the images; give it before them")
    return bundle_folder(bundle), given
