"""The folders of the trained examples. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from morvit_deploy.errors import ConfigError

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config

DIGITS = ("digits-expert", "digits-token")
DIGIT_IMAGES = "digits-test"
THRESHOLDS, TOPK = "scenes-thresholds", "scenes-topk"
SCENES = "scenes-test"
FOLDERS = (THRESHOLDS, TOPK, SCENES, *DIGITS, DIGIT_IMAGES)
ADAPTIVE, FIXED, DENSE = "scenes-adaptive", "scenes-fixed", "scenes-dense"  # bundles of the scenes
BESIDE_THE_PACKAGE = Path(__file__).resolve().parents[2] / "examples"


def find_examples(given: Path | None) -> Path:
    """The given folder, ./examples, or the one in the clone; ConfigError where folders are missing."""
    tried = [given] if given is not None else [Path("examples"), BESIDE_THE_PACKAGE]
    for folder in tried:
        if all((folder / name).is_dir() for name in FOLDERS):
            return folder
    there = [folder for folder in tried if folder.is_dir()]
    missing = [name for name in FOLDERS if there and not (there[0] / name).is_dir()] or FOLDERS
    raise ConfigError(
        f"no trained examples in {' or '.join(map(str, tried))}: missing {', '.join(missing)}; run the demo in a "
        "clone of the repository, or name its examples folder with --examples"
    )


def check_scene_models(adaptive: Config, sister: Config) -> None:
    """ConfigError unless the first model owns thresholds and the second, of the same task, is trained by top-k."""
    if adaptive.thresholds is None:
        raise ConfigError(
            f"{THRESHOLDS}: got a checkpoint without `thresholds`, expected one that owns static thresholds; use the "
            "examples folder of the repository"
        )
    if sister.thresholds is not None or sister.capacity is None:
        owned = (
            "a checkpoint that owns thresholds" if sister.thresholds is not None else f"{sister.routing!r}"
        )
        raise ConfigError(f"{TOPK}: got {owned}, expected expert_choice with `capacity` alone")
    for name in ("image_size", "in_channels", "num_classes", "labels"):
        ours, theirs = getattr(adaptive, name), getattr(sister, name)
        if ours != theirs:
            raise ConfigError(f"{TOPK}: got {name} {theirs}, expected {ours} as in {THRESHOLDS}")
