"""Do calibration images look as the checkpoint's preprocessing expects? Running channel statistics. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.model.config import Preprocess

FAR = 1.0  # of the preprocessing's std: photographs' own sets differ by less than half of it
WIDE = 2.5  # times its std, or that part of it: images of a few grey levels, or of noise


def _zeros() -> NDArray[np.float64]:
    return np.zeros(3)


@dataclass
class Channels:
    """Sums over pixels in [0, 1], of each channel."""

    pixels: int = 0
    total: NDArray[np.float64] = field(default_factory=_zeros)
    squares: NDArray[np.float64] = field(default_factory=_zeros)

    def add(self, pixels: Pixels) -> None:
        """uint8 (n, height, width, 3)."""
        values = pixels.reshape(-1, 3) / 255.0
        self.pixels += len(values)
        self.total += values.sum(axis=0)
        self.squares += np.square(values).sum(axis=0)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Of each channel."""
        return self.total / max(1, self.pixels)

    @property
    def std(self) -> NDArray[np.float64]:
        """Of each channel."""
        return np.sqrt(np.maximum(self.squares / max(1, self.pixels) - np.square(self.mean), 0))

    def remark(self, preprocess: Preprocess) -> str | None:
        """A sentence with the numbers when the images are far from what the checkpoint was trained on."""
        mean, std = np.asarray(preprocess.mean), np.asarray(preprocess.std)
        away = np.abs(self.mean - mean) / std
        ratio = self.std / std
        if (away <= FAR).all() and (ratio <= WIDE).all() and (ratio >= 1 / WIDE).all():
            return None
        return (
            f"the calibration images have mean {_told(self.mean)} and std {_told(self.std)}, the checkpoint's "
            f"preprocessing says {_told(mean)} and {_told(std)}: ranges fitted to other images than it will meet "
            "are wrong; give images like those it was trained on"
        )


def _told(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
