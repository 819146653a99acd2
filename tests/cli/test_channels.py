"""Models of 2, 6 and 13 channels from `.npy` pictures, end to end through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import answer, run
from tiny_models import make_config, normalised, random_model

from morvit_deploy.exporters.targets import open_session
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.config import Config

RETURNED = 1e-4  # × max(1, max |logit|): float32 round-off of the runtime


def of_channels(count: int, **changes: object) -> Config:
    preprocess = {"mean": [0.5] * count, "std": [0.25] * count, "resize": 36, "interpolation": "bilinear"}
    return make_config(in_channels=count, preprocess=preprocess, **changes)


@pytest.fixture
def arrays(tmp_path: Path) -> Callable[[int], Path]:
    """A folder of smooth pictures, uint8 and float32 in turn."""

    def made(channels: int) -> Path:
        folder = tmp_path / f"pictures{channels}"
        folder.mkdir()
        rng = np.random.default_rng(channels)
        for number in range(32):
            coarse = rng.random((5, 6, channels), dtype=np.float32)
            smooth = np.kron(coarse, np.ones((8, 8, 1), np.float32))
            np.save(
                folder / f"{number:02}.npy", smooth if number % 2 else (smooth * 255).round().astype(np.uint8)
            )
        return folder

    return made


@pytest.mark.parametrize("channels", [2, 6, 13])
def test_from_export_to_bench(channels: int, arrays: Callable[[int], Path], tmp_path: Path) -> None:
    config, pictures = of_channels(channels), arrays(channels)
    checkpoint, bundle = tmp_path / "checkpoint", tmp_path / "bundle"
    save_checkpoint(random_model(config), checkpoint)
    answer("export", checkpoint, "-o", bundle, "--images", pictures)
    assert answer("verify", bundle, "--checkpoint", checkpoint, "--images", pictures)["passed"]
    found = answer("predict", bundle, pictures, "--logits")["predictions"]
    with open_session(bundle) as session:
        pixels = np.stack([session.read(one["image"]) for one in found])
    expected = random_model(config, dtype=torch.float64)(normalised(config, pixels)).logits.numpy()
    logits = np.array([one["logits"] for one in found])
    assert np.abs(logits - expected).max() <= RETURNED * max(1.0, np.abs(expected).max())
    few = ("--runs", "10", "--blocks", "2", "--warmup", "1", "--starts", "1", "--threads", "1")
    measured = answer("bench", bundle, "--images", pictures, *few)
    assert (
        measured["bundles"][0]["latency_ms"]["p50"] > 0 and str(pictures) in measured["conditions"]["inputs"]
    )


def test_calibrate_and_inspect(arrays: Callable[[int], Path], tmp_path: Path) -> None:
    pictures, checkpoint = arrays(6), tmp_path / "checkpoint"
    save_checkpoint(random_model(of_channels(6)), checkpoint)
    answer("calibrate", checkpoint, "--images", pictures, "-o", tmp_path / "plan.json", "--buckets", "2")
    bundle = tmp_path / "bundle"
    answer("export", checkpoint, "-o", bundle, "--plan", tmp_path / "plan.json", "--images", pictures)
    answer("predict", bundle, pictures / "00.npy")
    answer("inspect", checkpoint, "--images", pictures, "-o", tmp_path / "maps")
    assert list((tmp_path / "maps").glob("*.png"))


def test_merged_tokens_of_two_channels_are_drawn(arrays: Callable[[int], Path], tmp_path: Path) -> None:
    save_checkpoint(random_model(of_channels(2, routing="merged")), tmp_path / "checkpoint")
    answer("inspect", tmp_path / "checkpoint", "--images", arrays(2), "-o", tmp_path / "maps")
    assert list((tmp_path / "maps").glob("*-tokens.png"))


def test_ranges_of_int8_are_those_of_the_channels(arrays: Callable[[int], Path], tmp_path: Path) -> None:
    config = of_channels(6, routing="none", embed_dim=64, mlp_dim=128, num_heads=4)
    save_checkpoint(random_model(config), tmp_path / "checkpoint")
    ended = run(
        "export", tmp_path / "checkpoint", "-o", tmp_path / "int8", "--precision", "int8", "--images", arrays(6),
        "--min-agreement", "0.1", "--allow-worse",
    )  # fmt: skip  # pairs
    assert ended.exit_code == 0 or "faster" in ended.output, ended.output


def test_a_picture_file_for_two_channels_says_what_to_give(
    arrays: Callable[[int], Path], image_files: list[Path], tmp_path: Path
) -> None:
    save_checkpoint(random_model(of_channels(2)), tmp_path / "checkpoint")
    answer("export", tmp_path / "checkpoint", "-o", tmp_path / "bundle")
    ended = run("predict", tmp_path / "bundle", image_files[0])
    assert ended.exit_code == 2 and "give .npy files (height, width, channels)" in " ".join(
        ended.output.split()
    )
    three = run("predict", tmp_path / "bundle", arrays(3))
    assert three.exit_code == 2 and "expected (height, width, 2)" in " ".join(three.output.split())
