"""Running a bundle: named arrays in, named arrays out, whatever the runtime. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core import running
from morvit_deploy.agent.core.running import AT_A_TIME, RESULTS, Arrays, Runner
from morvit_deploy.bundle.kernel_warnings import kernel_warnings
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, normalise, read_image
from morvit_deploy.errors import ImageError

__all__ = ["AT_A_TIME", "RESULTS", "Arrays", "Guess", "HostDispatch", "Runner", "Session", "softmax"]


class HostDispatch(running.HostDispatch):
    """A stem, then each group of images in the trunk of its bucket: of a manifest."""

    def __init__(self, manifest: Manifest, stem: Runner, open_trunk: Callable[[str], Runner]) -> None:
        self.manifest = manifest
        names = [bucket.name for bucket in manifest.plan.buckets]
        carried = [port.name for port in manifest.carried]
        super().__init__(names, manifest.batch, carried, stem, open_trunk)


@dataclass(frozen=True)
class Guess:
    """One class of a prediction."""

    index: int
    label: str
    probability: float


class Session:
    """An opened bundle: pictures in, answers out. Made by `open_bundle`; a context manager."""

    def __init__(self, folder: Path, manifest: Manifest, runner: Runner) -> None:
        self.folder, self.manifest, self.runner = folder, manifest, runner

    def __repr__(self) -> str:
        return f"Session({str(self.folder)!r}, {self.manifest.described})"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes this machine's results worse than those of the machine that exported the bundle."""
        return kernel_warnings(self.manifest.lowering)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runner.close()

    def read(self, path: str | Path, *, upscale: bool = False) -> Pixels:
        """A picture file as the pixels this bundle takes, uint8 (height, width, 3)."""
        return read_image(path, self.manifest.preprocess, self.manifest.config.image_size, upscale=upscale)

    def run(self, pixels: Pixels) -> Arrays:
        """uint8 (n, height, width, 3), any n, to every output of the graph, n rows each.

        A bundle of fixed batch takes its batch at a time; the last one is filled up and the filling cut off.
        """
        size = self.manifest.config.image_size
        if (
            pixels.dtype != np.uint8
            or pixels.ndim != 4
            or pixels.shape[1:] != (size, size, 3)
            or not len(pixels)
        ):
            raise ImageError(
                f"got pixels {pixels.dtype} {list(pixels.shape)}, expected uint8 [n, {size}, {size}, 3], n > 0"
            )
        return running.run_in_batches(self.runner, pixels, self.manifest.batch, self.feed)

    def feed(self, pixels: Pixels) -> NDArray[Any]:
        """The graph's own input for these pixels: themselves, or normalised floats."""
        return pixels if self.manifest.input == "uint8" else normalise(pixels, self.manifest.preprocess)

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """float32 (n, classes)."""
        return self.run(pixels)["logits"]

    def guesses(self, logits: NDArray[np.float32], count: int = 5) -> list[Guess]:
        """The `count` most probable classes of one image's logits (classes,), best first."""
        probability = softmax(logits)
        best = np.argsort(-probability, kind="stable")[:count]
        labels = self.manifest.labels
        return [Guess(int(i), labels[i] if labels else str(i), float(probability[i])) for i in best]


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Along the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probability: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probability
