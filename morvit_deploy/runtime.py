"""Running a bundle: named arrays in, named arrays out, whatever the runtime. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle import Manifest
from morvit_deploy.errors import ImageError
from morvit_deploy.pixels import Pixels, normalise, read_image

AT_A_TIME = 32  # images a dynamic batch takes in one run, so that memory does not grow with their number

RESULTS = ("logits", "bucket", "overflow", "depth")

Arrays = dict[str, NDArray]


class Runner(ABC):
    """A loaded graph of one target. Use as a context manager; leaving it frees the runtime's memory."""

    runtime: str = ""  # what answers, for reports

    @abstractmethod
    def run(self, feeds: Arrays) -> Arrays:
        """Named inputs to named outputs."""

    def close(self) -> None:  # noqa: B027  # not every runtime has something to free
        """Free what the runtime holds."""

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HostDispatch(Runner):
    """A stem, then each group of images in the trunk of its bucket; who overflows is run again in the last, `full`.

    Trunks are opened when they are first needed.
    """

    def __init__(self, manifest: Manifest, stem: Runner, open_trunk: Callable[[str], Runner]) -> None:
        self.manifest, self.stem, self._open_trunk = manifest, stem, open_trunk
        self.runtime = stem.runtime
        self._trunks: dict[str, Runner] = {}
        self._carried = [port.name for port in manifest.carried]

    def run(self, feeds: Arrays) -> Arrays:
        outputs = self.stem.run(feeds)
        bucket = outputs["bucket"].copy()
        carried = {name: outputs.pop(name) for name in self._carried}
        for number in np.unique(bucket):
            self._run_group(int(number), np.flatnonzero(bucket == number), carried, outputs)
        again = np.flatnonzero(outputs.get("overflow", False))
        if len(again):
            last = len(self.manifest.plan.buckets) - 1
            self._run_group(last, again, carried, outputs)
            bucket[again] = last
            outputs["overflow"][again] = True  # of the bucket that was predicted
        return outputs | {"bucket": bucket}

    def trunk(self, name: str) -> Runner:
        """The trunk of a bucket."""
        if name not in self._trunks:
            self._trunks[name] = self._open_trunk(name)
        return self._trunks[name]

    def close(self) -> None:
        for runner in (self.stem, *self._trunks.values()):
            runner.close()

    def _run_group(self, number: int, rows: NDArray[np.int64], carried: Arrays, outputs: Arrays) -> None:
        """Run some rows of the batch in one bucket and put their answers into `outputs`."""
        trunk, batch = self.trunk(self.manifest.plan.buckets[number].name), self.manifest.batch
        size = len(rows) if batch == "dynamic" else batch
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part))])
            feeds = carried if batch == 1 else {name: array[filled] for name, array in carried.items()}
            for name, array in trunk.run(feeds).items():
                if name not in outputs:
                    outputs[name] = np.zeros((len(outputs["bucket"]), *array.shape[1:]), array.dtype)
                outputs[name][part] = array[: len(part)]


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
        parts = [self._run_filled(chunk) for chunk in self._chunks(pixels)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _chunks(self, pixels: Pixels) -> Iterator[Pixels]:
        step = AT_A_TIME if self.manifest.batch == "dynamic" else self.manifest.batch
        for start in range(0, len(pixels), step):
            yield pixels[start : start + step]

    def _run_filled(self, chunk: Pixels) -> Arrays:
        batch = len(chunk) if self.manifest.batch == "dynamic" else self.manifest.batch
        filled = np.concatenate([chunk, np.repeat(chunk[-1:], batch - len(chunk), axis=0)])
        outputs = self.runner.run({"image": self.feed(filled)})
        if self.manifest.batch == 1:  # a graph for one image has no batch axis inside
            outputs |= {name: array[None] for name, array in outputs.items() if name not in RESULTS}
        return {name: array[: len(chunk)] for name, array in outputs.items()}

    def feed(self, pixels: Pixels) -> NDArray:
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


def softmax(logits: NDArray) -> NDArray[np.float64]:
    """Along the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
