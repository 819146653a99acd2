"""A GPU that is not there: the driver's functions over host memory, and TensorRT engines that ONNX Runtime answers.

Addresses and handles are integers; captured work runs at launch and not before; memory that was not allocated, or too
little of it, is an error.
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

from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.agent.trt import driver as cuda_driver

GPU = {"name": "Fake 4090", "compute_capability": "8.9"}
OUT_OF_MEMORY, INVALID_VALUE, CAPTURE_INVALIDATED = 2, 1, 901  # CUresult of cuda.h
NAMES = {
    INVALID_VALUE: b"CUDA_ERROR_INVALID_VALUE",
    OUT_OF_MEMORY: b"CUDA_ERROR_OUT_OF_MEMORY",
    CAPTURE_INVALIDATED: b"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
}


class FakeDriver:
    """The part of libcuda that is called, with ctypes arguments as the driver gets them."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.work: dict[int, Any] = {}  # graphs, graphs that are ready, and events, by handle
        self.uncapturable = False
        self.launches, self.streams, self.devices, self.room = 0, set[int](), 1, 1 << 30

    def cuInit(self, flags: Any) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, device: Any, number: Any) -> int:
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
        name.value = GPU["name"].encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = dict(zip((75, 76), map(int, GPU["compute_capability"].split(".")), strict=True))[
            attribute
        ]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        context._obj.value = 7
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        return 0 if context.value == 7 else INVALID_VALUE

    def cuGetErrorName(self, status: Any, name: Any) -> int:
        name._obj.value = NAMES.get(status.value)
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:
        if size.value > self.room:
            return OUT_OF_MEMORY
        block = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(block)
        self.memory[ctypes.addressof(block)] = block
        return 0

    def cuMemFree_v2(self, address: Any) -> int:
        del self.memory[address.value]
        return 0

    def cuStreamCreate(self, stream: Any, flags: Any) -> int:
        stream._obj.value = len(self.streams) + 1
        self.streams.add(stream._obj.value)
        return 0

    def cuStreamDestroy_v2(self, stream: Any) -> int:
        self.streams.discard(stream.value)
        return 0

    def cuMemcpyHtoDAsync_v2(self, to: Any, source: Any, size: Any, stream: Any) -> int:
        return self._copied(to.value, to.value, source.value, size.value)

    def cuMemcpyDtoHAsync_v2(self, to: Any, source: Any, size: Any, stream: Any) -> int:
        return self._copied(source.value, to.value, source.value, size.value)

    def cuStreamSynchronize(self, stream: Any) -> int:
        return 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: Any) -> int:
        self.recording[stream.value] = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        if self.uncapturable:
            del self.recording[stream.value]
            return CAPTURE_INVALIDATED
        graph._obj.value = self._keep(self.recording.pop(stream.value))
        return 0

    def cuGraphInstantiateWithFlags(self, ready: Any, graph: Any, flags: Any) -> int:
        ready._obj.value = self._keep([*self.work[graph.value]])
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:
        del self.work[graph.value]
        return 0

    cuGraphExecDestroy = cuGraphDestroy

    def cuGraphLaunch(self, graph: Any, stream: Any) -> int:
        self.launches += 1
        for work in self.work[graph.value]:
            work()
        return 0

    def cuEventCreate(self, event: Any, flags: Any) -> int:
        event._obj.value = self._keep(None)
        return 0

    def cuEventDestroy_v2(self, event: Any) -> int:
        del self.work[event.value]
        return 0

    def cuEventRecord(self, event: Any, stream: Any) -> int:
        self.work[event.value] = time.perf_counter()
        return 0

    def cuEventSynchronize(self, event: Any) -> int:
        return 0

    def cuEventElapsedTime(self, ms: Any, before: Any, after: Any) -> int:
        ms._obj.value = 1e3 * (self.work[after.value] - self.work[before.value])
        return 0

    def _copied(self, device: int, to: int, source: int, size: int) -> int:
        if device not in self.memory or len(self.memory[device]) < size:
            return INVALID_VALUE
        ctypes.memmove(to, source, size)
        return 0

    def _keep(self, work: Any) -> int:
        handle = 1000 + max(self.work, default=0)
        self.work[handle] = work
        return handle


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
        recording = self.engine.trt.driver.recording.get(stream)
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
    """A module `tensorrt` that runs fake engines, a GPU, and its driver over host memory; the module."""
    trt: Any = ModuleType("tensorrt")
    trt.__version__, trt.driver, trt.refuses_to_run, trt.log = version, FakeDriver(), False, None
    trt.runtimes = []
    severity = enum.IntEnum("Severity", ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"), start=0)
    trt.ILogger = type("ILogger", (), dict(severity.__members__))
    trt.TensorIOMode = enum.Enum("TensorIOMode", ("NONE", "INPUT", "OUTPUT"))
    trt.LayerInformationFormat = enum.Enum("LayerInformationFormat", ("ONELINE", "JSON"))
    trt.nptype = lambda kind: np.dtype(TYPES[kind[len("tensor(") : -1]])

    class Runtime:
        def __init__(self, log: Any) -> None:
            trt.log, self.engine_host_code_allowed = log, False
            trt.runtimes.append(self)

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            if not content.startswith(b"{"):
                trt.log.log(trt.ILogger.ERROR, "Error Code 1: Serialization (Magic tag does not match)")
                return None
            return FakeEngine(trt, **json.loads(content))

    trt.Runtime = Runtime
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(trt_build, "this_device", lambda: GPU)
    monkeypatch.setattr(cuda_driver, "library", lambda: trt.driver)
    return trt


def put_engines(
    bundle: Path,
    version: str = "10.3.0",
    batch: Any = 1,
    version_compatible: bool = False,
    **changes: Any,
) -> None:
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
                "version_compatible": version_compatible,
                "complaints": [],
            }
        )
    head = {"format": trt_build.RECORD_FORMAT, "flavor": "tensorrt", "tensorrt": version, "device": GPU}
    record = head | {"engines": engines} | changes
    (build / trt_build.RECORD).write_text(json.dumps(record))
