"""The models of the Edge-RecViT benchmark: a checkpoint, plan and bundle for each mean depth; two dense forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from depth_router import depths, set_depths
from eager_edge import write_eager
from numpy.typing import NDArray
from PIL import Image

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.bundle.pixels import Pixels, normalise, synthetic_images
from morvit_deploy.exporters.api import export
from morvit_deploy.files import write_text
from morvit_deploy.model.checkpoint import init_model, load_checkpoint, save_checkpoint
from morvit_deploy.model.macs import schedule_macs
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.presets import preset
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.planning.rounds import calibrate

PRESET, PICTURES = "edge_recvit_b16", "pictures"
PICTURE_SIZE = 256  # before the centre crop
SEEN, UNSEEN = 3, 4  # seeds of the pictures
CHECKED = 1  # pictures that an export is verified on: in every bucket, in float64
AT_ONCE = 2  # exports: tracing keeps one core busy
MASKED, EAGER = "masked", "eager"


@dataclass(frozen=True)
class Subject:
    """A model of one mean depth: how deep its tokens go, and what they should cost; MACs of an image."""

    asked: float
    mean: float
    within: float  # standard deviation of depth inside a picture, mean over the pictures
    between: float  # standard deviation of the pictures' mean depths
    unpadded: float  # if each picture had a bucket of its own
    unseen: float  # pictures that the buckets were not fitted to
    plan: Plan

    @property
    def name(self) -> str:
        """Of its bundle."""
        return f"depth-{self.asked:g}"


def write_all(
    folder: Path,
    asked: Sequence[float],
    count: int,
    buckets: int,
    bar_depth: float,
    tell: Callable[[str], None],
) -> list[Subject]:
    """A bundle for each mean depth asked for, several at a time, and both dense forms of `bar_depth`'s checkpoint.

    The pictures, `count` of them, are in `folder / PICTURES`; a bundle has the name of its subject, MASKED or EAGER.
    """
    pictures = folder / PICTURES
    pictures.mkdir()
    for number, pixels in enumerate(synthetic_images(count, PICTURE_SIZE, seed=SEEN)):
        Image.fromarray(pixels).save(pictures / f"{number:03}.png")
    tell(f"exporting {len(asked)} depths, {AT_ONCE} at a time")
    with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool:
        subjects = list(pool.map(partial(_write_depth, folder, buckets), asked))
    tell("exporting the dense forms")
    dense = next((it for it in subjects if it.asked == bar_depth), subjects[0])  # any depth has the same
    checkpoint = folder / f"{dense.name}-checkpoint"
    model = load_checkpoint(checkpoint)
    images = open_images(pictures, model.config, limit=CHECKED).all()
    export(checkpoint, folder / MASKED, form="masked", images=pictures, limit=CHECKED)
    write_eager(model, folder / EAGER, open_manifest(folder / MASKED), images)
    return subjects


def _write_depth(folder: Path, buckets: int, asked: float) -> Subject:
    """Checkpoint, plan and bundle of one mean depth."""
    pictures, name = folder / PICTURES, f"depth-{asked:g}"
    checkpoint, plan_file = folder / f"{name}-checkpoint", folder / f"{name}.json"
    model = init_model(preset(PRESET), seed=0)
    images = _normal(model, open_images(pictures, model.config).all())
    mean = set_depths(model, images, asked)
    save_checkpoint(model, checkpoint)
    plan = calibrate(checkpoint, pictures, buckets=buckets).plan
    write_text(plan_file, plan.to_json())
    export(checkpoint, folder / name, plan=plan_file, images=pictures, limit=CHECKED)
    depth = depths(model, images).numpy()
    others = synthetic_images(len(images), model.config.image_size, seed=UNSEEN)
    elsewhere = _counts(model, depths(model, _normal(model, others)).numpy())
    macs = np.array([bucket.macs for bucket in plan.buckets])
    own = [schedule_macs(model.config, tuple(counts)) for counts in _counts(model, depth).tolist()]
    return Subject(
        asked=asked,
        mean=mean,
        within=float(depth.std(axis=1).mean()),
        between=float(depth.mean(axis=1).std()),
        unpadded=float(np.mean(own)),
        unseen=float(macs[plan.dispatched(elsewhere)[0]].mean()),
        plan=plan,
    )


def _normal(model: MoRViT, images: Pixels) -> torch.Tensor:
    return torch.from_numpy(normalise(images, model.config.preprocess))


def _counts(model: MoRViT, depth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Depths (n, N) to the patch tokens that run each layer (n, layers)."""
    layers = np.arange(1, model.config.num_layers + 1)
    counts: NDArray[np.int64] = (depth[:, None, :] >= layers[:, None]).sum(axis=2)
    return counts
