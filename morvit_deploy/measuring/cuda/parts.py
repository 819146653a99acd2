"""The parts of a bundle on a GPU, each with inputs on the device: TensorRT's engines, ONNX Runtime's sessions.

A trunk's inputs are what the bundle's own stem hands over, on the first pictures. No torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.parity import gaps
from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.bundle.pixels import Pixels, normalise
from morvit_deploy.bundle.session import Arrays, Runner, Session
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.onnx.graphs.names import graph_files
from morvit_deploy.exporters.targets import find_target, open_runner
from morvit_deploy.exporters.trt.driver import Cuda
from morvit_deploy.exporters.trt.engine import TrtEngine
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import LARGEST_BATCH
from morvit_deploy.exporters.trt.run import look_for, on_cpu, open_engines
from morvit_deploy.measuring.core.inputs import Source, draw, in_rounds
from morvit_deploy.measuring.core.parity import PARITY_IMAGES, LogitParity
from morvit_deploy.measuring.cuda.sessions import CudaSession

SWEEP = (1, 8, 32)


@dataclass(frozen=True)
class About:
    """Whose part it is, and how it runs."""

    bundle: str
    name: str
    batch: int


@dataclass(frozen=True)
class Expected:
    """Feeds of several runs, and the logits (images, classes) that the same graph returns for them on the CPU."""

    rounds: Sequence[Arrays]
    logits: NDArray[np.float32]
    precision: str  # whose gate holds


class Part(ABC):
    """A graph that can be run over what lies on the device, and with its inputs and outputs copied."""

    runtime: str
    stream: int
    captured: bool
    rounds_to: str | None = None  # the precision of its products, where that is below the bundle's fp32
    expected: Expected | None = None  # of a part that returns logits

    def __init__(self, about: About, feeds: Arrays) -> None:
        self.bundle, self.name, self.batch, self.feeds = about.bundle, about.name, about.batch, feeds

    @abstractmethod
    def enqueue(self) -> None:
        """Put one run on the stream."""

    @abstractmethod
    def run(self, feeds: Arrays) -> Arrays:
        """Inputs in, one run, outputs out."""

    @abstractmethod
    def close(self) -> None:
        """Free the device's memory."""

    def whole(self) -> Arrays:
        """A run with transfers, of what is timed."""
        return self.run(self.feeds)

    def over(self, rounds: Sequence[Arrays]) -> list[Arrays]:
        """A run of each; afterwards what is timed lies on the device again."""
        outputs = [self.run(feeds) for feeds in rounds]
        self.whole()
        return outputs

    def parity(self) -> LogitParity | None:
        """Its logits against the expected ones; None for a stem, whose outputs the trunks' logits show."""
        if self.expected is None:
            return None
        logits = np.concatenate([outputs["logits"] for outputs in self.over(self.expected.rounds)])
        found = gaps(logits, self.expected.logits)
        place = f"on the GPU ({self.name}, batch {self.batch})"
        return LogitParity.of(self.bundle, place, self.rounds_to or self.expected.precision, found)


class EnginePart(Part):
    """A TensorRT engine, with or without a CUDA graph."""

    def __init__(self, about: About, engine: TrtEngine, feeds: Arrays) -> None:
        super().__init__(about, feeds)
        self.engine, self.runtime, self.stream = engine, engine.runtime, engine.stream
        engine.run(feeds)  # fills the buffers, and captures
        self.captured = engine.captured

    def enqueue(self) -> None:
        self.engine.enqueue()

    def run(self, feeds: Arrays) -> Arrays:
        return self.engine.run(feeds)

    def close(self) -> None:
        self.engine.close()


class SessionPart(Part):
    """A session of ONNX Runtime on its CUDA provider."""

    rounds_to = "fp16"  # fp32 products are rounded to TF32, which has as many bits

    def __init__(self, about: About, session: CudaSession, feeds: Arrays) -> None:
        super().__init__(about, feeds)
        self.session, self.runtime, self.stream = session, session.runtime, session.stream
        session.load(feeds)
        self.captured = session.graph

    def enqueue(self) -> None:
        self.session.enqueue()

    def run(self, feeds: Arrays) -> Arrays:
        return self.session.run(feeds)

    def close(self) -> None:
        self.session.close()


def open_parts(
    folder: Path, cuda: Cuda, source: Source, batches: Sequence[int] | None, stack: ExitStack
) -> list[Part]:
    """Every part of a bundle at every batch size, with and without a CUDA graph where there can be one.

    `stack` closes them. Raises TargetError for a target that does not run on a GPU, or a batch that the bundle does
    not take.
    """
    manifest = open_manifest(folder)
    if "cuda" not in find_target(manifest.target).devices:
        raise TargetError(
            f"{folder} is for {manifest.target}; --device cuda measures targets trt and onnx: export it again"
        )
    sizes = _sizes(folder, manifest, batches)
    pixels = draw(source, manifest.config, max(PARITY_IMAGES, *sizes))
    bundle = GpuBundle(folder, manifest, cuda, pixels, stack)
    captures = manifest.dispatch != "graph" and manifest.batch != "dynamic"
    return [
        part
        for captured in ((False, True) if captures else (False,))
        for size in sizes
        for part in bundle.parts(size, captured)
    ]


class GpuBundle:
    """A bundle whose parts are opened on the GPU, and compared with the same graphs on the CPU."""

    def __init__(
        self, folder: Path, manifest: Manifest, cuda: Cuda, pixels: Pixels, stack: ExitStack
    ) -> None:
        self.folder, self.manifest, self.cuda, self.stack = folder, manifest, cuda, stack
        self.files = graph_files(manifest.dispatch, manifest.plan)
        self._pixels, self._logits = pixels, dict[tuple[str, int], NDArray[np.float32]]()

    def parts(self, size: int, captured: bool) -> list[Part]:
        """The only graph; or the stem, and every trunk on what the stem hands over."""
        names = [*self.files]
        rounds = [{"image": self._image(pixels)} for pixels in self._rounds(size)]
        opener = self._opener(captured)
        first = self._opened(opener, names[0], size, rounds[0])
        if len(names) == 1:
            first.expected = self._expected(names[0], size, rounds)
            return [first]
        carried = [port.name for port in self.manifest.carried]
        handed = [{name: outputs[name] for name in carried} for outputs in first.over(rounds)]
        trunks = [self._opened(opener, name, size, handed[0]) for name in names[1:]]
        for trunk in trunks:
            trunk.expected = self._expected(trunk.name, size, handed)
        return [first, *trunks]

    def _rounds(self, size: int) -> Pixels:
        return in_rounds(self._pixels, size)[: max(1, PARITY_IMAGES // size)]

    def _image(self, pixels: Pixels) -> NDArray[Any]:
        return pixels if self.manifest.input == "uint8" else normalise(pixels, self.manifest.preprocess)

    def _opened(self, opener: Opener, name: str, size: int, feeds: Arrays) -> Part:
        part = opener(About(str(self.folder), name, size), feeds)
        self.stack.callback(part.close)
        return part

    def _expected(self, name: str, size: int, rounds: Sequence[Arrays]) -> Expected:
        if (name, size) not in self._logits:
            bucket = name if len(self.files) > 1 else None
            with Session(self.folder, self.manifest, self._reference(bucket)) as session:
                logits = [session.logits(pixels) for pixels in self._rounds(size)]
            self._logits[name, size] = np.concatenate(logits)
        return Expected(rounds, self._logits[name, size], self.manifest.precision)

    def _reference(self, bucket: str | None) -> Runner:
        """ONNX Runtime on the CPU, on the same graphs."""
        if isinstance(self.manifest.target_form, TrtForm):
            return on_cpu(self.folder, self.manifest, bucket=bucket)
        return open_runner(self.folder, self.manifest, bucket=bucket)

    def _opener(self, captured: bool) -> Opener:
        if not isinstance(self.manifest.target_form, TrtForm):
            return lambda about, feeds: SessionPart(
                about,
                CudaSession(self.folder / self.files[about.name], self.folder, self.cuda, captured=captured),
                feeds,
            )
        here = look_for(self.folder, self.manifest)
        if not here.runs:
            lacking = "is not installed" if here.version is None else "sees no GPU"
            raise TargetError(
                f"{self.folder}: {here.product} {lacking} here, so its engines cannot be measured"
            )
        engines = open_engines(self.folder, self.manifest, here, cuda_graphs=captured)
        return lambda about, feeds: EnginePart(about, engines(about.name), feeds)


Opener = Callable[[About, Arrays], Part]


def _sizes(folder: Path, manifest: Manifest, wanted: Sequence[int] | None) -> list[int]:
    if manifest.batch != "dynamic":
        if wanted is not None and set(wanted) != {manifest.batch}:
            raise TargetError(
                f"got batches {list(wanted)}, but {folder} was exported for batch {manifest.batch}; export it again "
                "with --batch dynamic"
            )
        return [manifest.batch]
    form = manifest.target_form
    largest = form.max_batch if isinstance(form, TrtForm) else None
    sizes = sorted(set(wanted or [size for size in SWEEP if size <= (largest or LARGEST_BATCH)]))
    if sizes[0] < 1 or (largest is not None and sizes[-1] > largest):
        raise TargetError(
            f"got batches {sizes}; {folder} takes 1 to {largest or 'any'} at once (--max-batch)"
        )
    return sizes
