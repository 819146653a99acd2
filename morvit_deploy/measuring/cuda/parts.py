"""Opens the parts of a bundle on a GPU, as TensorRT engines or ONNX Runtime sessions, with their inputs. No torch.

A trunk's inputs are the outputs of the bundle's stem for the first pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays, Runner
from morvit_deploy.agent.parity import gaps
from morvit_deploy.bundle.links import open_linked
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, normalise
from morvit_deploy.bundle.session import Session
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.onnx.graphs.names import graph_files
from morvit_deploy.exporters.onnx.run import check_installed
from morvit_deploy.exporters.targets import find_target, open_runner
from morvit_deploy.exporters.trt.engine import Cuda
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import LARGEST_BATCH
from morvit_deploy.exporters.trt.run import look_for, on_cpu, open_engines
from morvit_deploy.measuring.core.inputs import Source, draw, in_rounds
from morvit_deploy.measuring.core.parity import PARITY_IMAGES, LogitParity
from morvit_deploy.measuring.cuda.sessions import CudaSession, NotCaptured
from morvit_deploy.model.answers.heads import SOFTMAX
from morvit_deploy.model.choices import Output

SWEEP = (1, 8, 32)
TF32_GATE = "fp16"  # the parity gate of products in TF32, whose mantissa is as short


class GpuGraph(Protocol):
    """A graph on the GPU: an engine of TensorRT, or a session on ONNX Runtime's CUDA provider."""

    runtime: str
    stream: int
    uncaptured: str | None  # why a run is no CUDA graph, where one was asked for

    @property
    def captured(self) -> bool:
        """Is a run one launch of a CUDA graph?"""

    def enqueue(self) -> None:
        """Put one run on the stream, over the inputs that are on the device."""

    def run(self, feeds: Arrays) -> Arrays:
        """Copy inputs in, run, copy outputs out."""

    def close(self) -> None:
        """Free the device's memory."""


@dataclass
class Part:
    """One graph of a bundle, with the inputs that it is timed on."""

    bundle: str
    name: str
    batch: int
    graph: GpuGraph
    captured: bool
    feeds: Arrays
    precision: str  # its parity gate
    head: str = SOFTMAX  # activation of the head
    output: Output = "logits"
    parity_feeds: Sequence[Arrays] = ()
    expected: NDArray[np.float32] | None = None  # its output for `parity_feeds`; None: a stem

    def whole(self) -> Arrays:
        """One timed run with transfers."""
        return self.graph.run(self.feeds)

    def over(self, rounds: Sequence[Arrays]) -> list[Arrays]:
        """Run each round, then put the timed inputs back on the device."""
        outputs = [self.graph.run(feeds) for feeds in rounds]
        self.whole()
        return outputs

    def parity(self) -> LogitParity | None:
        """Compare the output with what is expected; None for a stem, which the trunks' outputs check."""
        if self.expected is None:
            return None
        answers = np.concatenate([outputs[self.output] for outputs in self.over(self.parity_feeds)])
        place = f"on the GPU ({self.name}, batch {self.batch})"
        return LogitParity.of(self.bundle, place, self.precision, gaps(answers, self.expected), self.head)


def open_parts(
    folder: Path,
    cuda: Cuda,
    source: Source,
    batches: Sequence[int] | None,
    stack: ExitStack,
    *,
    tf32: bool = False,
) -> tuple[list[Part], list[str]]:
    """Every part of a bundle at every batch size, with and without a CUDA graph, and which could not be captured.

    `stack` closes them. Raises TargetError for a target that does not run on a GPU, or an unsupported batch.
    """
    folder, manifest = open_linked(folder)
    if "cuda" not in find_target(manifest.target).devices:
        raise TargetError(
            f"{folder} is for {manifest.target}; --device cuda measures targets trt and onnx: export it again"
        )
    if tf32 and isinstance(manifest.target_form, TrtForm):
        raise TargetError(
            f"got TF32 for {folder}, whose engines were built without it; leave it out, or measure a bundle of "
            "target onnx with it"
        )
    sizes = _sizes(folder, manifest, batches)
    pixels = draw(source, manifest.config, max(PARITY_IMAGES, *sizes))
    bundle = GpuBundle(folder, manifest, cuda, pixels, stack, tf32=tf32)
    captures = manifest.dispatch != "graph" and manifest.batch != "dynamic"
    parts = [
        part
        for captured in ((False, True) if captures else (False,))
        for size in sizes
        for part in bundle.parts(size, captured)
        if part.captured == captured
    ]
    return parts, bundle.uncaptured


class GpuBundle:
    """Opens a bundle's parts on the GPU, with expected outputs from the same graphs on the CPU."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        cuda: Cuda,
        pixels: Pixels,
        stack: ExitStack,
        *,
        tf32: bool = False,
    ) -> None:
        self.folder, self.manifest, self.cuda, self.stack, self.tf32 = folder, manifest, cuda, stack, tf32
        self.uncaptured: list[str] = []
        self.files = graph_files(manifest.dispatch, manifest.plan)
        self._pixels, self._answers = pixels, dict[tuple[str, int], NDArray[np.float32]]()

    def parts(self, size: int, captured: bool) -> list[Part]:
        """The only graph, or the stem and every trunk."""
        names = [*self.files]
        rounds = [{"image": self._image(pixels)} for pixels in self._rounds(size)]
        first = self._opened(names[0], size, rounds[0], captured)
        if len(names) == 1:
            return [self._expecting(first, rounds)]
        carried = [port.name for port in self.manifest.carried]
        handed = [{name: outputs[name] for name in carried} for outputs in first.over(rounds)]
        trunks = [self._opened(name, size, handed[0], captured) for name in names[1:]]
        return [first, *(self._expecting(trunk, handed) for trunk in trunks)]

    def _rounds(self, size: int) -> Pixels:
        return in_rounds(self._pixels, size)[: max(1, PARITY_IMAGES // size)]

    def _image(self, pixels: Pixels) -> NDArray[Any]:
        return pixels if self.manifest.input == "uint8" else normalise(pixels, self.manifest.preprocess)

    def _opened(self, name: str, size: int, feeds: Arrays, captured: bool) -> Part:
        """A part with its inputs on the device, without a CUDA graph where none can be captured."""
        graph = self._graph(name, feeds, captured)
        if captured and not graph.captured:
            self.uncaptured.append(
                f"{name} of {self.folder} (batch {size}) has no CUDA graph and is timed without one alone: "
                f"{graph.uncaptured}"
            )
        gate = TF32_GATE if self.tf32 and self.manifest.precision == "fp32" else self.manifest.precision
        answers = self.manifest.head, self.manifest.output
        return Part(str(self.folder), name, size, graph, graph.captured, feeds, gate, *answers)

    def _graph(self, name: str, feeds: Arrays, captured: bool) -> GpuGraph:
        """A graph that has run; the same graph without a capture where that fails."""
        try:
            return self._run_once(name, feeds, captured)
        except NotCaptured as error:
            graph = self._run_once(name, feeds, captured=False)
            graph.uncaptured = str(error)
            return graph

    def _run_once(self, name: str, feeds: Arrays, captured: bool) -> GpuGraph:
        graph = self._opener(captured)(name)
        self.stack.callback(graph.close)
        graph.run(feeds)  # fills the buffers, and captures
        return graph

    def _expecting(self, part: Part, rounds: Sequence[Arrays]) -> Part:
        key = part.name, part.batch
        if key not in self._answers:
            bucket = part.name if len(self.files) > 1 else None
            with Session(self.folder, self.manifest, self._reference(bucket)) as session:
                answers = [session.answer(pixels) for pixels in self._rounds(part.batch)]
            self._answers[key] = np.concatenate(answers)
        return replace(part, parity_feeds=rounds, expected=self._answers[key])

    def _reference(self, bucket: str | None) -> Runner:
        """ONNX Runtime on the CPU, on the same graphs."""
        if isinstance(self.manifest.target_form, TrtForm):
            return on_cpu(self.folder, self.manifest, bucket=bucket)
        return open_runner(self.folder, self.manifest, bucket=bucket)

    def _opener(self, captured: bool) -> Callable[[str], GpuGraph]:
        if not isinstance(self.manifest.target_form, TrtForm):
            check_installed(self.folder, self.manifest)
            return lambda name: CudaSession(
                self.folder / self.files[name], self.folder, self.cuda, captured=captured, tf32=self.tf32
            )
        here = look_for(self.folder, self.manifest)
        if not here.runs:
            lacking = "is not installed" if here.version is None else "sees no GPU"
            raise TargetError(
                f"{self.folder}: {here.product} {lacking} here, so its engines cannot be measured"
            )
        return open_engines(self.folder, self.manifest, here, cuda_graphs=captured)


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
