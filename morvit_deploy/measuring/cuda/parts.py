"""The parts of a bundle on a GPU, each with inputs on the device: TensorRT's engines, ONNX Runtime's sessions.

A trunk's inputs are what the bundle's own stem hands over, on the first pictures. No torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.bundle.pixels import normalise
from morvit_deploy.bundle.session import Arrays
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.onnx.graphs.names import graph_files
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.exporters.trt.driver import Cuda
from morvit_deploy.exporters.trt.engine import TrtEngine
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import LARGEST_BATCH
from morvit_deploy.exporters.trt.run import look_for, open_engines
from morvit_deploy.measuring.core.inputs import Source, draw
from morvit_deploy.measuring.cuda.sessions import CudaSession

SWEEP = (1, 8, 32)


@dataclass(frozen=True)
class About:
    """Whose part it is, and how it runs."""

    bundle: str
    name: str
    batch: int


class Part(ABC):
    """A graph that can be run over what lies on the device, and with its inputs and outputs copied."""

    runtime: str
    stream: int
    captured: bool

    def __init__(self, about: About, feeds: Arrays) -> None:
        self.bundle, self.name, self.batch, self.feeds = about.bundle, about.name, about.batch, feeds

    @abstractmethod
    def enqueue(self) -> None:
        """Put one run on the stream."""

    @abstractmethod
    def whole(self) -> Arrays:
        """Inputs in, one run, outputs out."""

    @abstractmethod
    def close(self) -> None:
        """Free the device's memory."""


class EnginePart(Part):
    """A TensorRT engine, with or without a CUDA graph."""

    def __init__(self, about: About, engine: TrtEngine, feeds: Arrays) -> None:
        super().__init__(about, feeds)
        self.engine, self.runtime, self.stream = engine, engine.runtime, engine.stream
        self.outputs = engine.run(feeds)  # fills the buffers, and captures
        self.captured = engine.captured

    def enqueue(self) -> None:
        self.engine.enqueue()

    def whole(self) -> Arrays:
        return self.engine.run(self.feeds)

    def close(self) -> None:
        self.engine.close()


class SessionPart(Part):
    """A session of ONNX Runtime on its CUDA provider."""

    def __init__(self, about: About, session: CudaSession, feeds: Arrays) -> None:
        super().__init__(about, feeds)
        self.session, self.runtime, self.stream = session, session.runtime, session.stream
        self.outputs = session.load(feeds)
        self.captured = session.graph

    def enqueue(self) -> None:
        self.session.enqueue()

    def whole(self) -> Arrays:
        return self.session.run(self.feeds)

    def close(self) -> None:
        self.session.close()


def open_parts(folder: Path, cuda: Cuda, source: Source, batches: Sequence[int] | None) -> list[Part]:
    """Every part of a bundle at every batch size, with and without a CUDA graph where there can be one.

    Raises TargetError for a target that does not run on a GPU, or a batch that the bundle does not take.
    """
    manifest = open_manifest(folder)
    if "cuda" not in find_target(manifest.target).devices:
        raise TargetError(
            f"{folder} is for {manifest.target}; --device cuda measures targets trt and onnx: export it again"
        )
    sizes = _sizes(folder, manifest, batches)
    pixels = draw(source, manifest.config, max(sizes))
    every: list[Part] = []
    try:
        for captured in (
            (False, True) if manifest.dispatch != "graph" and manifest.batch != "dynamic" else (False,)
        ):
            open_part = _opener(folder, manifest, cuda, captured)
            for size in sizes:
                image = (
                    pixels[:size]
                    if manifest.input == "uint8"
                    else normalise(pixels[:size], manifest.preprocess)
                )
                every += _at_batch(folder, manifest, open_part, {"image": image}, size)
    except BaseException:
        for part in every:
            part.close()
        raise
    return every


Opener = Callable[[About, Arrays], "EnginePart | SessionPart"]


def _at_batch(
    folder: Path, manifest: Manifest, open_part: Opener, feeds: Arrays, size: int
) -> list[EnginePart | SessionPart]:
    names = [*graph_files(manifest.dispatch, manifest.plan)]
    first = open_part(About(str(folder), names[0], size), feeds)
    carried = {port.name: first.outputs[port.name] for port in manifest.carried}
    return [first, *(open_part(About(str(folder), name, size), carried) for name in names[1:])]


def _opener(folder: Path, manifest: Manifest, cuda: Cuda, captured: bool) -> Opener:
    if isinstance(manifest.target_form, TrtForm):
        here = look_for(folder, manifest)
        if not here.runs:
            lacking = "is not installed" if here.version is None else "sees no GPU"
            raise TargetError(f"{folder}: {here.product} {lacking} here, so its engines cannot be measured")
        engines = open_engines(folder, manifest, here, cuda_graphs=captured)
        return lambda about, feeds: EnginePart(about, engines(about.name), feeds)
    files = graph_files(manifest.dispatch, manifest.plan)
    return lambda about, feeds: SessionPart(
        about, CudaSession(folder / files[about.name], folder, cuda, captured=captured), feeds
    )


def _sizes(folder: Path, manifest: Manifest, asked: Sequence[int] | None) -> list[int]:
    if manifest.batch != "dynamic":
        if asked is not None and set(asked) != {manifest.batch}:
            raise TargetError(
                f"got batches {list(asked)}, but {folder} was exported for batch {manifest.batch}; export it again "
                "with --batch dynamic"
            )
        return [manifest.batch]
    form = manifest.target_form
    largest = form.max_batch if isinstance(form, TrtForm) else None
    sizes = sorted(set(asked or [size for size in SWEEP if size <= (largest or LARGEST_BATCH)]))
    if sizes[0] < 1 or (largest is not None and sizes[-1] > largest):
        raise TargetError(
            f"got batches {sizes}; {folder} takes 1 to {largest or 'any'} at once (--max-batch)"
        )
    return sizes
