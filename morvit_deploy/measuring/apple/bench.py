"""`bench --device mac|iphone` and `--emit-project`: from a bundle to a measurement or a project. No torch."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.bundle.answers import check_finite
from morvit_deploy.bundle.manifest import MANIFEST, Manifest, open_manifest
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.bundle.session import OVERFLOWING, Session
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.sdk.bundle import check_target, read_package
from morvit_deploy.measuring.apple.goldens import Golden, Goldens
from morvit_deploy.measuring.apple.project import check_place, write_project
from morvit_deploy.measuring.apple.running import Wish, load, look, run_bench, runtime_of
from morvit_deploy.measuring.core.inputs import Source, draw
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.strict_json import read_json

PICTURES = 5  # of each bucket; the median picture is compared, so one flipped decision does not fail a device
SURVEYED = 64  # pictures to search for some of each bucket
WAY_OUT = (
    "`--emit-project DIR` writes, on any system, a folder with the bundle and a bench.py; "
    "run that on a Mac that has what is missing."
)

Predict = Callable[
    [Pixels, str | None], Arrays
]  # pictures, and perhaps the bucket to run them in, to outputs


def bench_apple(
    bundle: str | Path,
    wish: Wish,
    *,
    images: str | Path | None = None,
    upscale: bool = False,
    exif: bool = False,
    predict: Predict | None = None,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> BenchResult:
    """Measure a bundle on this Mac, or on an iPhone from it.

    `predict` computes the expected logits (default: what its runtime names). Raises TargetError with a checklist of
    what is missing, ParityError when the device returns wrong logits, BundleError, ImageError.
    """
    assert wish.amount  # refused before anything is looked for
    check_system(wish, bundle)
    folder, manifest = _opened(bundle)
    package = read_package(folder)
    phone = look(package, wish, WAY_OUT)
    tell("finding pictures and expected logits for each bucket")
    source = Source(images, upscale, exif=exif)
    goldens = find_goldens(manifest, source, predict or interpreted(folder, manifest))
    return run_bench(package, goldens, wish, phone, inputs=source.named, tell=tell, progress=progress)


def check_system(wish: Wish, bundle: str | Path) -> None:
    """TargetError, with what was looked for, on a system that is no Mac: before a bundle is opened."""
    if platform.system() != "Darwin":
        look(_target_in(Path(bundle)), wish, WAY_OUT)


def _target_in(bundle: Path) -> str | None:
    """The target that a manifest names, which is checked later; None where it cannot be read."""
    try:
        known = read_json(bundle / MANIFEST, BundleError, advice="expected an exported bundle")
    except (OSError, BundleError):
        return None
    return str(known.get("target")) if isinstance(known, dict) else None


def emit_project(
    bundle: str | Path,
    project: str | Path,
    *,
    images: str | Path | None = None,
    upscale: bool = False,
    exif: bool = False,
    force: bool = False,
    predict: Predict | None = None,
) -> Path:
    """Write a project that measures the bundle on a Mac; on any system. OutputError, BundleError, TargetError."""
    folder, manifest = _opened(bundle)
    check_place(folder, Path(project))
    source = Source(images, upscale, exif=exif)
    goldens = find_goldens(manifest, source, predict or interpreted(folder, manifest))
    return write_project(folder, manifest, goldens, Path(project), inputs=source.named, force=force)


def interpreted(folder: Path, manifest: Manifest) -> Predict:
    """What a device must return, computed on this machine by what the runtime names for it."""

    def run(pixels: Pixels, bucket: str | None) -> Arrays:
        opened = load(runtime_of(manifest.target).expected)
        with Session(folder, manifest, opened(folder, manifest, bucket)) as session:
            return session.run(pixels)

    return run


def find_goldens(manifest: Manifest, source: Source, predict: Predict) -> Goldens:
    """PICTURES for each bucket, if possible such that choose it, with the bucket's logits."""
    names = [bucket.name for bucket in manifest.plan.buckets]
    adaptive = manifest.plan.adaptive
    pixels = draw(source, manifest.config, SURVEYED if adaptive else PICTURES, shuffled=adaptive)
    if not adaptive:
        return Goldens({names[0]: _golden(pixels, None, True, predict)}, {names[0]: 1.0}, "one bucket")
    chosen = predict(pixels, None)["bucket"]  # the one that ran last: `full` after an overflow
    golden = {}
    for number, name in enumerate(names):
        own = np.flatnonzero(chosen == number)[:PICTURES]
        taken = pixels[own] if len(own) else pixels[:PICTURES]
        golden[name] = _golden(taken, name, bool(len(own)), predict)
    shares = {name: float(np.mean(chosen == number)) for number, name in enumerate(names)}
    planned = {bucket.name: bucket.share or 0.0 for bucket in manifest.plan.buckets}
    if source.images is not None:
        return Goldens(golden, shares, f"as {len(pixels)} pictures of {source.images} choose their buckets")
    if any(share and golden[name].chosen for name, share in planned.items()):
        return Goldens(golden, planned, "the plan's shares, of the buckets that some picture chooses")
    return Goldens(
        golden, {}, "equal parts of every bucket that some picture chooses, as the plan has no shares"
    )


def _golden(pixels: Pixels, bucket: str | None, chosen: bool, predict: Predict) -> Golden:
    logits = np.asarray(predict(pixels, bucket)["logits"], dtype=np.float32)
    check_finite(logits, f"expected logits of bucket {bucket or 'main'}", OVERFLOWING)
    return Golden(pixels, logits, chosen)


def _opened(bundle: str | Path) -> tuple[Path, Manifest]:
    folder = Path(bundle)
    manifest = open_manifest(folder)
    check_target(folder, manifest.target)
    return folder, manifest
