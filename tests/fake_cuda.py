"""A GPU that is not there: cuda-python's functions over host memory, and TensorRT engines that ONNX Runtime answers.

Statuses come first, as cuda-python has it; addresses and streams are integers; captured work runs at launch and not
before; memory that was not allocated, or too little of it, is an error.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from morvit_deploy.agent import trt_build
from morvit_deploy.exporters import cuda_driver

GPU = {"name": "Fake 4090", "compute_capability": "8.9"}
Status = enum.IntEnum(
    "cudaError_t", {"cudaSuccess": 0, "cudaErrorInvalidValue": 1, "cudaErrorMemoryAllocation": 2}
)
OK = Status.cudaSuccess


class FakeCudart:
    """The part of `cuda.bindings.runtime` that is called."""

    cudaMemcpyKind = enum.IntEnum(
        "cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2}
    )
    cudaStreamCaptureMode = enum.IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.launches, self.streams, self.devices, self.room = 0, set[int](), 1, 1 << 30

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return OK, self.devices

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if size > self.room:
            return Status.cudaErrorMemoryAllocation, 0
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return OK, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return (OK,)

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        self.streams.add(len(self.streams) + 1)
        return OK, len(self.streams)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        self.streams.discard(stream)
        return (OK,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: Any, stream: int) -> tuple[Any, ...]:
        device = to if kind == 1 else source
        if device not in self.memory or len(self.memory[device]) < size:
            return (Status.cudaErrorInvalidValue,)
        ctypes.memmove(to, source, size)
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Any, ...]:
        self.recording[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        return OK, self.recording.pop(stream)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        return OK, graph

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[Any, ...]:
        self.launches += 1
        for work in graph:
            work()
        return (OK,)

    def cudaEventCreate(self) -> tuple[Any, ...]:
        return OK, {"at": None}

    def cudaEventRecord(self, event: Any, stream: int) -> tuple[Any, ...]:
        event["at"] = time.perf_counter()
        return (OK,)

    def cudaEventSynchronize(self, event: Any) -> tuple[Any, ...]:
        return (OK,)

    def cudaEventElapsedTime(self, before: Any, after: Any) -> tuple[Any, ...]:
        return OK, 1e3 * (after["at"] - before["at"])


class FakeEngine:
    """An engine whose bytes are `{"onnx": path, "batch": …}`: the graph's own ports, answered by ONNX Runtime."""

    def __init__(self, trt: Any, onnx: str, batch: Any) -> None:
        self.trt, self.batch = trt, batch
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.ports = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.ports)

    def port(self, name: str) -> Any:
        return next(port for port in self.ports if port.name == name)

    def get_tensor_name(self, number: int) -> str:
        return str(self.ports[number].name)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.port(name).shape)

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.port(name).type)

    def get_tensor_mode(self, name: str) -> Any:
        inputs = [port.name for port in self.session.get_inputs()]
        return self.trt.TensorIOMode.INPUT if name in inputs else self.trt.TensorIOMode.OUTPUT

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [tuple(b if size == -1 else size for size in self.get_tensor_shape(name)) for b in self.batch]

    def create_execution_context(self) -> Any:
        return FakeContext(self)

    def create_engine_inspector(self) -> Any:
        return type("Inspector", (), {"get_engine_information": lambda _, form: "layer one\nlayer two\n"})()


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.addresses, self.shapes = engine, dict[str, int](), dict[str, tuple[int, ...]]()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address != 0

    def set_input_shape(self, name: str, shape: Any) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.trt.refuses_to_run:
            self.engine.trt.log.log(self.engine.trt.ILogger.ERROR, "enqueueV3: illegal memory access")
            return False
        recording = self.engine.trt.cudart.recording.get(stream)
        if recording is None:
            self.work()
        else:
            recording.append(self.work)
        return True

    def work(self) -> None:
        engine = self.engine
        feeds = {}
        for port in engine.session.get_inputs():
            shape = self.shapes.get(port.name, engine.get_tensor_shape(port.name))
            dtype = np.dtype(engine.trt.nptype(port.type))
            held = ctypes.string_at(self.addresses[port.name], int(np.prod(shape)) * dtype.itemsize)
            feeds[port.name] = np.frombuffer(held, dtype).reshape(shape)
        names = [port.name for port in engine.session.get_outputs()]
        for name, value in zip(names, engine.session.run(names, feeds), strict=True):
            value = np.ascontiguousarray(value)
            ctypes.memmove(self.addresses[name], value.ctypes.data, value.nbytes)


TYPES = {
    "float": "float32",
    "float16": "float16",
    "uint8": "uint8",
    "bool": "bool",
    "int32": "int32",
    "int64": "int64",
}


def fake_gpu(monkeypatch: pytest.MonkeyPatch, version: str = "10.3.0") -> Any:
    """A module `tensorrt` that runs fake engines, a GPU, and cuda-python over host memory; the module."""
    trt: Any = ModuleType("tensorrt")
    trt.__version__, trt.cudart, trt.refuses_to_run, trt.log = version, FakeCudart(), False, None
    severity = enum.IntEnum("Severity", ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"), start=0)
    trt.ILogger = type("ILogger", (), dict(severity.__members__))
    trt.TensorIOMode = enum.Enum("TensorIOMode", ("NONE", "INPUT", "OUTPUT"))
    trt.LayerInformationFormat = enum.Enum("LayerInformationFormat", ("ONELINE", "JSON"))
    trt.nptype = lambda kind: np.dtype(TYPES[kind[len("tensor(") : -1]])

    class Runtime:
        def __init__(self, log: Any) -> None:
            trt.log, self.engine_host_code_allowed = log, False

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            if not content.startswith(b"{"):
                trt.log.log(trt.ILogger.ERROR, "Error Code 1: Serialization (Magic tag does not match)")
                return None
            return FakeEngine(trt, **json.loads(content))

    trt.Runtime = Runtime
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(trt_build, "this_device", lambda: GPU)
    monkeypatch.setattr(cuda_driver, "_runtime", lambda: trt.cudart)
    return trt


def put_engines(bundle: Path, version: str = "10.3.0", batch: Any = 1, **changes: Any) -> None:
    """Fake engines and their record in a bundle, as the recipe names them."""
    build = bundle / "build"
    engines = []
    for engine in json.loads((build / "build.json").read_text())["engines"]:
        content = json.dumps({"onnx": str(build / engine["onnx"]), "batch": batch}).encode()
        (build / engine["engine"]).write_bytes(content)
        engines.append(
            {
                "name": engine["name"],
                "engine": engine["engine"],
                "bytes": len(content),
                "sha256": trt_build.hashlib.sha256(content).hexdigest(),
                "seconds": 1.0,
                "compute_capability": [],
                "hardware_compatible": False,
                "version_compatible": False,
                "complaints": [],
            }
        )
    head = {"format": trt_build.RECORD_FORMAT, "flavor": "tensorrt", "tensorrt": version, "device": GPU}
    record = head | {"engines": engines} | changes
    (build / trt_build.RECORD).write_text(json.dumps(record))
