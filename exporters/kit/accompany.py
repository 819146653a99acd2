"""Adds MoRViTKit and the model's description to a verified bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.bundle.session import Session
from morvit_deploy.exporters.kit.golden import golden_of
from morvit_deploy.exporters.kit.write import SWIFT, write_description, write_swift_package
from morvit_deploy.exporters.targets import open_runner
from morvit_deploy.model.choices import Output
from morvit_deploy.model.config import Config
from morvit_deploy.model.reference import MoRViT


def lacks(config: Config, output: Output) -> str:
    """What of a model MoRViTKit does not support, as a remark for the user; empty for square RGB pictures."""
    what = [
        f"images of {config.pictures}" * isinstance(config.image_size, tuple),
        f"{config.in_channels} channels" * (config.in_channels != 3),
        "overlapping patches" * (config.patch_stride is not None),
        "head_activation none" * (config.head_activation == "none" and output == "logits"),
    ]
    named = ", ".join(filter(None, what))
    if not named:
        return ""
    return f"without MoRViTKit, the Swift package, which does not support {named}; load the model with your own code"


def accompany(model: MoRViT, manifest: Manifest, images: Pixels | None, folder: Path) -> list[str]:
    """Write MoRViTKit and the description into the bundle `folder`; returns the names of their files.

    `images` are the pictures that the bundle was verified with; None: random ones. TargetError for a manifest whose
    entry is no `AppForm`.
    """
    if lacks(model.config, manifest.output):
        return []

    def written(pixels: Pixels) -> NDArray[np.float32]:
        with Session(folder, manifest, open_runner(folder, manifest)) as session:
            return session.answer(pixels)

    golden = golden_of(model, manifest, images, written)
    kit = write_swift_package(folder / SWIFT, manifest, golden)
    return [*(f"{SWIFT}/{name}" for name in kit), write_description(folder, manifest)]
