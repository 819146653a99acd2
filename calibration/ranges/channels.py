"""Channel statistics of calibration images, compared with the checkpoint's preprocessing. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.model.config import Preprocess

FAR = 1.0  # largest difference of means, in std; data sets of photographs differ by less than half of this
WIDE = 2.5  # largest ratio of std; images with few grey levels, or of noise, exceed it


@dataclass
class Channels:
    """Sums over pixels in [0, 1] for each channel."""

    pixels: int = 0
    # (channels,) once there are pixels
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))

    def add(self, pixels: Pixels) -> None:
        """Add pixels uint8 (n, height, width, channels)."""
        values = pixels.reshape(-1, pixels.shape[-1]) / 255.0
        self.pixels += len(values)
        self.total = self.total + values.sum(axis=0)
        self.squares = self.squares + np.square(values).sum(axis=0)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel."""
        return self.total / max(1, self.pixels)

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of each channel."""
        return np.sqrt(np.maximum(self.squares / max(1, self.pixels) - np.square(self.mean), 0))

    def remark(self, preprocess: Preprocess) -> str | None:
        """Return a warning if the images differ from those that the preprocessing describes."""
        mean, std = np.asarray(preprocess.mean), np.asarray(preprocess.std)
        away = np.abs(self.mean - mean) / std
        ratio = self.std / std
        if (away <= FAR).all() and (ratio <= WIDE).all() and (ratio >= 1 / WIDE).all():
            return None
        return (
            f"the calibration images have mean {_text(self.mean)} and std {_text(self.std)}, expected about "
            f"{_text(mean)} and {_text(std)} from the checkpoint's preprocessing; ranges fitted to different images "
            "are wrong: use images like those in training"
        )


def _text(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
