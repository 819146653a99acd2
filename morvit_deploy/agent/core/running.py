"""Runs loaded graphs, from named arrays to named arrays, in batches and in groups of one bucket. Numpy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]
else:
    Arrays = dict  # numpy.typing came with numpy 1.20, which boards of Python 3.8 may not have

AT_A_TIME = 32  # images a dynamic batch takes in one run, so that memory does not grow with their number

RESULTS = ("logits", "features", "tokens", "bucket", "overflow", "depth")


class Runner(ABC):
    """A loaded graph of one target. Use as a context manager; leaving it frees the runtime's memory."""

    runtime = ""  # what ran the graph, for reports

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why runs so far were slower than asked for."""
        return ()

    @abstractmethod
    def run(self, feeds: Arrays) -> Arrays:
        """Named inputs to named outputs."""

    def close(self) -> None:  # noqa: B027  # not every runtime has something to free
        """Free what the runtime holds."""

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class HostDispatch(Runner):
    """A stem, then each group of images in the trunk of its bucket; those that overflow run again in the last.

    `carried` are the values passed from the stem to a trunk. Trunks are opened on first use.
    """

    def __init__(
        self,
        buckets: Sequence[str],
        batch: int | str,
        carried: Sequence[str],
        stem: Runner,
        open_trunk: Callable[[str], Runner],
    ) -> None:
        self.buckets, self.batch, self.stem, self._open_trunk = buckets, batch, stem, open_trunk
        self.runtime = stem.runtime
        self._trunks: dict[str, Runner] = {}
        self._carried = list(carried)

    def run(self, feeds: Arrays) -> Arrays:
        outputs = self.stem.run(feeds)
        bucket = outputs["bucket"].copy()
        carried = {name: outputs.pop(name) for name in self._carried}
        for number in sorted(set(bucket.tolist())):
            self._run_group(number, np.flatnonzero(bucket == number), carried, outputs)
        again = np.flatnonzero(outputs.get("overflow", False))
        if len(again):
            last = len(self.buckets) - 1
            self._run_group(last, again, carried, outputs)
            bucket[again] = last
            outputs["overflow"][again] = True  # of the bucket that was predicted
        outputs["bucket"] = bucket
        return outputs

    def trunk(self, name: str) -> Runner:
        """The trunk of a bucket."""
        if name not in self._trunks:
            self._trunks[name] = self._open_trunk(name)
        return self._trunks[name]

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(one for runner in (self.stem, *self._trunks.values()) for one in runner.remarks)

    def close(self) -> None:
        for runner in (self.stem, *self._trunks.values()):
            runner.close()

    def _run_group(self, number: int, rows: NDArray[np.int64], carried: Arrays, outputs: Arrays) -> None:
        """Run rows of the batch in one bucket and write their results into `outputs`."""
        trunk, batch = self.trunk(self.buckets[number]), self.batch
        size = len(rows) if isinstance(batch, str) else batch
        if len(rows) == len(outputs["bucket"]) == size:  # every image, in its order
            outputs.update((name, np.array(array)) for name, array in trunk.run(carried).items())
            return
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part))])
            feeds = carried if batch == 1 else {name: array[filled] for name, array in carried.items()}
            for name, array in trunk.run(feeds).items():
                if name not in outputs:
                    outputs[name] = np.zeros((len(outputs["bucket"]), *array.shape[1:]), array.dtype)
                outputs[name][part] = array[: len(part)]


class Chained(Runner):
    """A stem and one trunk, whatever bucket an image needs; returns neither the bucket nor the carried values."""

    def __init__(self, stem: Runner, trunk: Runner, carried: Sequence[str]) -> None:
        self.stem, self.trunk, self.carried, self.runtime = stem, trunk, list(carried), stem.runtime

    def run(self, feeds: Arrays) -> Arrays:
        begun = self.stem.run(feeds)
        found = {**begun, **self.trunk.run({name: begun[name] for name in self.carried})}
        return {name: value for name, value in found.items() if name not in (*self.carried, "bucket")}

    @property
    def remarks(self) -> tuple[str, ...]:
        return (*self.stem.remarks, *self.trunk.remarks)

    def close(self) -> None:
        self.stem.close()
        self.trunk.close()


def run_in_batches(
    runner: Runner,
    pixels: NDArray[np.uint8],
    batch: int | str,
    feed: Callable[[NDArray[np.uint8]], NDArray[Any]],
) -> Arrays:
    """uint8 (n, height, width, 3), any n > 0, to every output, n rows each; `batch` is a number or "dynamic".

    A graph of fixed batch runs its batch at a time; the last one is padded and the padding cut off.
    """
    step = AT_A_TIME if isinstance(batch, str) else batch
    chunks = (pixels[start : start + step] for start in range(0, len(pixels), step))
    parts = [_run_filled(runner, chunk, batch, feed) for chunk in chunks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _run_filled(
    runner: Runner,
    chunk: NDArray[np.uint8],
    batch: int | str,
    feed: Callable[[NDArray[np.uint8]], NDArray[Any]],
) -> Arrays:
    size = len(chunk) if isinstance(batch, str) else batch
    filled = np.concatenate([chunk, np.repeat(chunk[-1:], size - len(chunk), axis=0)])
    outputs = runner.run({"image": feed(filled)})
    if batch == 1:  # a graph for one image has no batch axis inside
        outputs.update({name: array[None] for name, array in outputs.items() if name not in RESULTS})
    return {name: array[: len(chunk)] for name, array in outputs.items()}


def normalise(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """uint8 (batch, height, width, 3) to normalised float32 (batch, 3, height, width)."""
    scaled = pixels.astype(np.float64) / 255
    normal = (scaled - np.asarray(mean)) / np.asarray(std)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2), dtype=np.float32)
