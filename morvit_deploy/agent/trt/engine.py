"""One TensorRT engine as a runner: device buffers, one stream, and a CUDA graph where shapes are fixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from morvit_deploy.agent.core.faults import AgentError, Refused
from morvit_deploy.agent.core.running import Arrays, Runner
from morvit_deploy.agent.trt.build import new_log
from morvit_deploy.agent.trt.driver import Cuda

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAST_LINES = 8  # of TensorRT's log, shown with an error


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine; the batch, where it is dynamic, is -1."""

    name: str
    is_input: bool
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    largest: int  # batch that its buffer holds; 0 where the first dimension is no dynamic batch

    def at(self, batch: int) -> tuple[int, ...]:
        """Its shape for a batch."""
        return tuple(batch if size == -1 else size for size in self.shape)

    @property
    def nbytes(self) -> int:
        """Of the largest batch."""
        return int(np.prod(self.at(self.largest), dtype=np.int64)) * self.dtype.itemsize


class TrtEngine(Runner):
    """A deserialised engine. Raises Refused, with TensorRT's log, when it cannot be loaded.

    With `graph`, a run is captured once as a CUDA graph and launched from then on, for engines of fixed shapes
    without conditionals. A batch larger than a dynamic engine's profile is run in parts. With `host_code`, the engine
    may bring code that runs on the CPU, as a version-compatible one does.
    """

    # raise where a run cannot be captured; else the engine is launched without a graph, and `remarks` say why
    needs_capture = True

    def __init__(
        self, trt: Any, cuda: Cuda, content: bytes, name: str, *, graph: bool, host_code: bool = False
    ) -> None:
        self.trt, self.cuda, self.name = trt, cuda, name
        self._log = new_log(trt)
        self._runtime = trt.Runtime(self._log)
        if host_code:
            self._runtime.engine_host_code_allowed = True
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise Refused(
                f"TensorRT {trt.__version__} cannot load {name}: {self._said()}; an engine runs with the version "
                "and on the kind of GPU that it was built for: build it here (`python build/build.py` in the bundle)"
            )
        self.engine, self._context = engine, engine.create_execution_context()
        if self._context is None:
            raise AgentError(f"no execution context for {name}: {self._said()}")
        self.tensors = tuple(self._tensor(number) for number in range(engine.num_io_tensors))
        self.stream = cuda.new_stream()
        self.addresses = {tensor.name: cuda.allocate(tensor.nbytes) for tensor in self.tensors}
        for tensor_name, address in self.addresses.items():
            if not self._context.set_tensor_address(tensor_name, address):
                raise AgentError(f"{name}: TensorRT refuses the buffer of {tensor_name!r}: {self._said()}")
        self.dynamic = any(-1 in tensor.shape for tensor in self.tensors)
        self._wants_graph = graph and not self.dynamic
        self._graph: Any = None
        self.uncaptured: str | None = None
        self._batch = 0

    @property
    def inputs(self) -> list[Tensor]:
        """Its inputs."""
        return [tensor for tensor in self.tensors if tensor.is_input]

    @property
    def outputs(self) -> list[Tensor]:
        """Its outputs."""
        return [tensor for tensor in self.tensors if not tensor.is_input]

    def run(self, feeds: Arrays) -> Arrays:
        if not self.dynamic:
            return self._run(feeds)
        largest = max(tensor.largest for tensor in self.tensors)
        count = len(next(iter(feeds.values())))
        parts = [
            self._run({name: array[start : start + largest] for name, array in feeds.items()})
            for start in range(0, count, largest)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def load(self, feeds: Arrays) -> list[NDArray[Any]]:
        """Copy inputs to the device, on the stream; the arrays that must live until it is synchronised."""
        held = []
        for tensor in self.inputs:
            array = np.ascontiguousarray(feeds[tensor.name], dtype=tensor.dtype)
            wanted = tensor.at(len(array) if tensor.largest else 0)
            if array.shape != wanted:
                raise AgentError(f"{self.name}: {tensor.name} has shape {array.shape}, expected {wanted}")
            if self.dynamic:
                self._batch = len(array)
                self._context.set_input_shape(tensor.name, array.shape)
            self.cuda.copy_in(self.addresses[tensor.name], array, self.stream)
            held.append(array)
        return held

    def enqueue(self) -> None:
        """Put one run on the stream, over what is in the buffers."""
        if self._graph is None:
            self._execute()
            if self._wants_graph:  # not the first: it may still load kernels
                self._capture()
            return
        self.cuda.launch(self._graph, self.stream)

    def fetch(self) -> Arrays:
        """Outputs of the last run; waits for it."""
        out = {tensor.name: np.empty(tensor.at(self._batch), tensor.dtype) for tensor in self.outputs}
        for name, array in out.items():
            self.cuda.copy_out(array, self.addresses[name], self.stream)
        self.cuda.synchronise(self.stream)
        return out

    def close(self) -> None:
        for address in self.addresses.values():
            self.cuda.free(address)
        if self._graph is not None:
            self.cuda.forget(self._graph)
        self.addresses, self._graph = {}, None
        self.cuda.close(self.stream)
        del self._context, self.engine, self._runtime

    @property
    def remarks(self) -> tuple[str, ...]:
        if self.uncaptured is None:
            return ()
        return (f"{self.name} runs without a CUDA graph, which is slower: {self.uncaptured}",)

    @property
    def captured(self) -> bool:
        """Is a run one launch of a CUDA graph?"""
        return self._graph is not None

    def layers(self) -> list[str]:
        """Names of the engine's layers, where the runtime reports them."""
        if not hasattr(self.engine, "create_engine_inspector"):
            return []
        inspector = self.engine.create_engine_inspector()
        text = inspector.get_engine_information(self.trt.LayerInformationFormat.ONELINE)
        return [line.strip() for line in str(text).splitlines() if line.strip()]

    def _run(self, feeds: Arrays) -> Arrays:
        held = self.load(feeds)
        self.enqueue()
        out = self.fetch()
        del held
        return out

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self.stream):
            raise AgentError(f"{self.name} did not run: {self._said()}")

    def _capture(self) -> None:
        """Capture a run; if that fails, no later one is captured."""
        if not self._capturable():  # yet: it is asked again at the next run
            self.uncaptured = "the runtime reports that its run cannot be captured"
            return
        self.cuda.synchronise(self.stream)
        try:
            self._graph, self.uncaptured = self.cuda.captured(self.stream, self._execute), None
        except (AgentError, self.cuda.failure) as error:
            if self.needs_capture:
                raise
            self._wants_graph, self.uncaptured = False, str(error)
            return
        self.cuda.launch(self._graph, self.stream)  # what was recorded has not run; the buffers are as before

    def _capturable(self) -> bool:
        """RTX reports whether a run can be captured now; TensorRT's fixed engines always can be."""
        tells = getattr(self._context, "is_stream_capturable", None)
        return tells is None or bool(tells(self.stream))

    def _tensor(self, number: int) -> Tensor:
        name = self.engine.get_tensor_name(number)
        shape = tuple(self.engine.get_tensor_shape(name))
        is_input = self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT
        dtype = np.dtype(self.trt.nptype(self.engine.get_tensor_dtype(name)))
        return Tensor(name, is_input, shape, dtype, self._largest() if -1 in shape else 0)

    def _largest(self) -> int:
        """The largest batch of the profile: every dynamic input has the same."""
        for number in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(number)
            shape = tuple(self.engine.get_tensor_shape(name))
            if self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT and -1 in shape:
                return int(tuple(self.engine.get_tensor_profile_shape(name, 0)[2])[shape.index(-1)])
        raise Refused(f"{self.name}: an output is dynamic but no input is; export the bundle again")

    def _said(self) -> str:
        return "; ".join((self._log.warnings + self._log.errors)[-LAST_LINES:]) or "its log is empty"
