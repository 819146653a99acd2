"""Tiny models, bundles and pictures that the tests share. Everything is seeded, so that every run is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from PIL import Image
from plans import threshold_plan
from torch import Tensor, nn

from morvit_deploy.checkpoint import init_model, save_checkpoint
from morvit_deploy.config import Config, parse_config
from morvit_deploy.model import MoRViT
from morvit_deploy.pixels import synthetic_images
from morvit_deploy.plan import Bucket, Plan
from morvit_deploy.presets import PRESETS

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

EXACT = 1e-9  # both sides are float64 and equal in real arithmetic: only the order of sums differs
TINY: dict[str, Any] = {
    **PRESETS["morvit_tiny_digits"],
    "image_size": 32,  # 16 patches of 8 × 8
    "embed_dim": 16,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_recursions": 3,
    "capacity": [12, 6, 3],
    "preprocess": {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.3, 0.25, 0.2],
        "resize": 36,
        "interpolation": "bicubic",
    },
}
SCALES = {"pos_embed": 1.0, "cls_token": 1.0, "patch_embed.proj.weight": 0.1}
ROUTER_SCALE = 0.6  # router logits a few tenths apart: decisions differ from image to image, by clear margins


def make_fields(**changes: Any) -> dict[str, Any]:
    """The fields of a tiny `config.json`; what a changed `routing` or `sharing` forbids is taken out."""
    fields = json.loads(json.dumps(TINY))
    if changes.get("sharing") == "none":
        fields |= {"num_recursions": 1, "cycle_depth": 3, "capacity": [9]}
    if changes.get("routing") == "expert_choice_flat":
        fields |= {"capacity": [9, 4, 13], "gate": "hard"}
    if changes.get("routing") == "token_choice":
        fields |= {"capacity": None, "gate": "hard", "attention_scope": "all"}
    if changes.get("routing") == "none":
        fields |= {"capacity": None, "gate": "hard", "router": None}
    router = changes.pop("router", fields["router"])
    preprocess = fields["preprocess"] | changes.pop("preprocess", {})
    fields |= changes | {"preprocess": preprocess}
    return fields | {"router": router if router is None else TINY["router"] | router}


def make_config(**changes: Any) -> Config:
    """The tiny configuration with `changes`; `router` and `preprocess` need only name what differs."""
    return parse_config(json.dumps(make_fields(**changes)))


def random_model(config: Config, seed: int = 0, dtype: torch.dtype = torch.float32) -> MoRViT:
    """A model in which every weight matters: biases and norms are random too, and images route differently."""
    generator = torch.Generator().manual_seed(seed)
    model = init_model(config, seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name in SCALES:
            parameter.copy_(noise * SCALES[name])
        elif "norm" in name:
            parameter.copy_(0.3 * noise + float(name.endswith("weight")))
        elif name.startswith("routers"):
            parameter.copy_(noise * ROUTER_SCALE)
        else:
            fan_in = parameter.shape[1] if parameter.ndim > 1 else 4
            parameter.copy_(noise / fan_in**0.5)
    return model.to(dtype)


def random_pixels(config: Config, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth pictures uint8 (count, size, size, 3)."""
    return synthetic_images(count, config.image_size, seed)


def normalised(config: Config, pixels: NDArray[np.uint8]) -> Tensor:
    """The reference's input, in float64 throughout: float64 (batch, 3, size, size)."""
    mean, std = np.asarray(config.preprocess.mean), np.asarray(config.preprocess.std)
    return torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).copy())


def own_bucket(config: Config, name: str = "own") -> Bucket:
    """The checkpoint's own schedule; every token in every step where it has none."""
    return Bucket(name=name, capacity=config.capacity or (config.num_patches,) * config.num_steps, macs=1)


def zero(module: nn.Module) -> None:
    """Set every weight of a module to zero."""
    for parameter in module.parameters():
        parameter.zero_()


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
