"""Bundles, checkpoints and picture folders that the tests share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptive_plans import threshold_plan
from hypothesis import HealthCheck, settings
from PIL import Image
from tiny_models import make_config, normalised, random_model, random_pixels

from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan

pytest_plugins = ["fake_jetson"]

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`exported(config, seed=0, plan=None, **options)`: a bundle folder, made once for each combination.

    What it was made from is beside it: `checkpoint`, and `plan.json` where a plan was given.
    """
    made: dict[str, Path] = {}

    def export_once(config: Config, seed: int = 0, plan: Plan | None = None, **options: Any) -> Path:
        from morvit_deploy import export

        key = repr((config, seed, plan, sorted(options.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("exported")
            save_checkpoint(random_model(config, seed), folder / "checkpoint")
            if plan is not None:
                (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
                options["plan"] = folder / "plan.json"
            export(folder / "checkpoint", folder / "bundle", **options)
            made[key] = folder / "bundle"
        return made[key]

    return export_once


@pytest.fixture(scope="session")
def tiny_bundle(exported: Callable[..., Path]) -> Path:
    """A good bundle of the tiny model, with depth output. Copy it before changing it."""
    return exported(make_config(), with_depth=True)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_bundle: Path) -> Path:
    """The checkpoint that `tiny_bundle` was made from. Copy it before changing it."""
    return tiny_bundle.parent / "checkpoint"


@pytest.fixture(scope="session")
def approximation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose plan answers some synthetic images otherwise than `checkpoint`, which is beside it."""
    from morvit_deploy import export

    config, folder = make_config(), tmp_path_factory.mktemp("approximation")
    model = random_model(config)
    logits = model(normalised(config, random_pixels(config, 32)).float()).logits
    model.head_layers()[-1].bias -= logits.mean(dim=0)  # no class is the likeliest for every image
    save_checkpoint(model, folder / "checkpoint")
    (folder / "plan.json").write_text(threshold_plan(config, (1e30, None, None), []).to_json())
    export(folder / "checkpoint", folder / "bundle", plan=folder / "plan.json")
    return folder / "bundle"


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six RGB PNG pictures of 48 × 48 in one folder without labels."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(6)]
    for path, picture in zip(paths, synthetic_images(6, 48, seed=7), strict=True):
        Image.fromarray(picture).save(path)
    return paths


@pytest.fixture(scope="session")
def calibration_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 RGB PNG pictures of 36 × 36 with a labels.csv: enough to calibrate with and to verify with others."""
    folder = tmp_path_factory.mktemp("calibration")
    lines = ["file,label"]
    for number, picture in enumerate(synthetic_images(48, 36, seed=21)):
        Image.fromarray(picture).save(folder / f"{number:02}.png")
        lines.append(f"{number:02}.png,{number % 10}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def copied_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "a checkpoint"))
