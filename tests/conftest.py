"""Bundles, checkpoints and picture folders that the tests share."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptive_plans import threshold_plan
from faster_export import FOLDER, speed_up
from filelock import FileLock
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
speed_up()


def pytest_configure(config: pytest.Config) -> None:
    """Give the processes of one run, which inherit the environment, a folder for traces."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="morvit-traces-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(FOLDER)))


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """What a test draws without a generator of its own is the same in each run, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of one run have in common: what one has made, the others find."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` in whichever process comes first; a `make` that fails leaves nothing."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            fresh = folder.with_suffix(".making")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            make(fresh)
            fresh.rename(folder)
    return folder


@pytest.fixture(scope="session")
def exported(shared: Path) -> Callable[..., Path]:
    """`exported(config, seed=0, plan=None, **options)`: a bundle folder, made once for each combination.

    What it was made from is beside it: `checkpoint`, and `plan.json` where a plan was given.
    """

    def export_once(config: Config, seed: int = 0, plan: Plan | None = None, **options: Any) -> Path:
        from morvit_deploy import export

        def make(folder: Path) -> None:
            save_checkpoint(random_model(config, seed), folder / "checkpoint")
            given = dict(options)
            if plan is not None:
                (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
                given["plan"] = folder / "plan.json"
            export(folder / "checkpoint", folder / "bundle", **given)

        made_of = (config.to_json(), seed, plan and plan.to_json(), sorted(options.items()))
        key = repr(made_of)
        name = f"exported-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        return made_once(shared / name, make) / "bundle"

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
def approximation(shared: Path) -> Path:
    """A bundle whose plan answers some synthetic images otherwise than `checkpoint`, which is beside it."""

    def make(folder: Path) -> None:
        from morvit_deploy import export

        config = make_config()
        model = random_model(config)
        logits = model(normalised(config, random_pixels(config, 32)).float()).logits
        model.head_layers()[-1].bias -= logits.mean(dim=0)  # no class is the likeliest for every image
        save_checkpoint(model, folder / "checkpoint")
        (folder / "plan.json").write_text(threshold_plan(config, (1e30, None, None), []).to_json())
        export(folder / "checkpoint", folder / "bundle", plan=folder / "plan.json")

    return made_once(shared / "approximation", make) / "bundle"


@pytest.fixture(scope="session")
def image_files(shared: Path) -> list[Path]:
    """Six RGB PNG pictures of 48 × 48 in one folder without labels."""

    def make(folder: Path) -> None:
        for number, picture in enumerate(synthetic_images(6, 48, seed=7)):
            Image.fromarray(picture).save(folder / f"{number}.png")

    return sorted(made_once(shared / "images", make).iterdir())


@pytest.fixture(scope="session")
def calibration_folder(shared: Path) -> Path:
    """48 RGB PNG pictures of 36 × 36 with a labels.csv: enough to calibrate with and to verify with others."""

    def make(folder: Path) -> None:
        lines = ["file,label"]
        for number, picture in enumerate(synthetic_images(48, 36, seed=21)):
            Image.fromarray(picture).save(folder / f"{number:02}.png")
            lines.append(f"{number:02}.png,{number % 10}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")

    return made_once(shared / "calibration", make)


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
