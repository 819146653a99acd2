"""Images that are unlike what the checkpoint's preprocessing says are told of, with the numbers."""

from __future__ import annotations

import numpy as np
from tiny_models import make_config

from morvit_deploy.calibration.ranges.channels import Channels


def seen(pixels: np.ndarray) -> Channels:
    channels = Channels()
    for part in np.array_split(pixels, 3):
        channels.add(part)
    return channels


def like(mean: list[float], std: list[float]) -> np.ndarray:
    """Pictures of these statistics."""
    noise = np.random.default_rng(0).normal(mean, std, (9, 40, 40, 3))
    return (noise.clip(0, 1) * 255).astype(np.uint8)


def test_statistics_are_those_of_all_pixels() -> None:
    pixels = like([0.4, 0.5, 0.6], [0.1, 0.2, 0.1])
    channels, values = seen(pixels), pixels.reshape(-1, 3) / 255
    assert np.allclose(channels.mean, values.mean(axis=0))
    assert np.allclose(channels.std, values.std(axis=0))


def test_likely_images_are_no_remark() -> None:
    preprocess = make_config().preprocess
    assert seen(like(list(preprocess.mean), [0.2, 0.2, 0.15])).remark(preprocess) is None


def test_unlikely_images_are_told_with_both_numbers() -> None:
    preprocess = make_config().preprocess  # mean 0.4, 0.5, 0.6
    remark = seen(like([0.95, 0.95, 0.95], [0.01, 0.01, 0.01])).remark(preprocess)
    assert remark is not None
    assert "mean (0.9" in remark and "(0.400, 0.500, 0.600)" in remark
    flat = seen(np.full((2, 8, 8, 3), 128, dtype=np.uint8)).remark(preprocess)
    assert flat is not None and "std (0.000, 0.000, 0.000)" in flat
