"""Device memory, streams, graphs and events through the driver's library `libcuda.so.1`, all that JetPack has.

Addresses and handles are plain integers. The context is the primary one, which TensorRT and ONNX Runtime use too; it
is set for the thread that makes a `Cuda`.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any, Callable, Iterator

from morvit_deploy.agent.core.faults import Lacking

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LIBRARY = "libcuda.so.1"
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL of cuda.h: other threads may allocate meanwhile
_HINTS = {  # CUresult of cuda.h whose name does not suggest what to do
    2: "; the GPU's memory is full: close what else uses it, or run a smaller batch",
    100: "; there is no GPU that CUDA can use: check `nvidia-smi` and CUDA_VISIBLE_DEVICES",
    803: "; the driver's library and its kernel module differ: restart the machine",
}


class Cuda:
    """The first GPU. Lacking when the driver is missing or too old, or a call fails."""

    failure: type[Exception] = Lacking  # what a failed call raises

    def __init__(self) -> None:
        self._api = library()
        self._call("cuInit", c_uint(0))
        count, device, context = c_int(), c_int(), c_void_p()
        self._call("cuDeviceGetCount", byref(count))
        if not count.value:
            raise Lacking("CUDA sees no GPU; check `nvidia-smi` and CUDA_VISIBLE_DEVICES")
        self._call("cuDeviceGet", byref(device), c_int(0))
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)  # kept until the process ends
        self._call("cuCtxSetCurrent", context)

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the device."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), c_size_t(max(size, 1)))
        return address.value

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cuMemFree_v2", c_uint64(address))

    def new_stream(self) -> int:
        """Handle of a new stream."""
        return self._made("cuStreamCreate", c_uint(0))

    def copy_in(self, address: int, array: Array, stream: int) -> None:
        """Host to device; the array must be contiguous and live until the stream is synchronised."""
        source = c_void_p(array.ctypes.data)
        self._call(
            "cuMemcpyHtoDAsync_v2", c_uint64(address), source, c_size_t(array.nbytes), c_void_p(stream)
        )

    def copy_out(self, array: Array, address: int, stream: int) -> None:
        """Device to host, into a contiguous array."""
        place = c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoHAsync_v2", place, c_uint64(address), c_size_t(array.nbytes), c_void_p(stream))

    def synchronise(self, stream: int) -> None:
        """Wait for all work on a stream."""
        self._call("cuStreamSynchronize", c_void_p(stream))

    def captured(self, stream: int, work: Callable[[], object]) -> int:
        """What `work` puts on the stream, recorded instead of run, ready to launch.

        Raises what `work` raises, or `failure` when something cannot be recorded. The stream works afterwards.
        """
        graph = c_void_p()
        self._call("cuStreamBeginCapture_v2", c_void_p(stream), c_int(_THREAD_LOCAL))
        try:
            work()
        except BaseException:  # an interrupt, too: a stream that still records runs nothing
            self._abandon(stream)
            raise
        self._call("cuStreamEndCapture", c_void_p(stream), byref(graph))
        try:
            return self._made("cuGraphInstantiateWithFlags", graph, c_uint64(0))
        finally:
            self._call("cuGraphDestroy", graph)  # what is ready is a copy

    def launch(self, graph: int, stream: int) -> None:
        """Run recorded work."""
        self._call("cuGraphLaunch", c_void_p(graph), c_void_p(stream))

    def forget(self, graph: int) -> None:
        """Free recorded work."""
        self._call("cuGraphExecDestroy", c_void_p(graph))

    @contextmanager
    def event(self) -> Iterator[int]:
        """A point in time of a stream, destroyed on leaving."""
        event = self._made("cuEventCreate", c_uint(0))
        try:
            yield event
        finally:
            self._call("cuEventDestroy_v2", c_void_p(event))

    def record(self, event: int, stream: int) -> None:
        """Record the event after the work on the stream."""
        self._call("cuEventRecord", c_void_p(event), c_void_p(stream))

    def elapsed_ms(self, before: int, after: int) -> float:
        """Milliseconds on the device between two events; waits for the second."""
        ms = c_float()
        self._call("cuEventSynchronize", c_void_p(after))
        self._call("cuEventElapsedTime", byref(ms), c_void_p(before), c_void_p(after))
        return ms.value

    def close(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cuStreamDestroy_v2", c_void_p(stream))

    def _abandon(self, stream: int) -> None:
        """End a recording and drop what it holds; one that has become invalid ends without a graph."""
        graph = c_void_p()
        if not self._api.cuStreamEndCapture(c_void_p(stream), byref(graph)):
            self._api.cuGraphDestroy(graph)

    def _made(self, name: str, *arguments: Any) -> int:
        """The handle that a function of creation writes to its first argument."""
        handle = c_void_p()
        self._call(name, byref(handle), *arguments)
        return int(handle.value or 0)

    def _call(self, name: str, *arguments: Any) -> None:
        """Every function returns its status. Integers are passed as ctypes of cuda.h's own width."""
        try:
            function = getattr(self._api, name)
        except AttributeError:
            raise self.failure(
                f"the NVIDIA driver has no {name}: it is older than CUDA 11.4; update it"
            ) from None
        status = int(function(*arguments))
        if status:
            raise self.failure(f"{name} failed: {self._name_of(status)}{_HINTS.get(status, '')}")

    def _name_of(self, status: int) -> str:
        name = c_char_p()
        unknown = self._api.cuGetErrorName(c_int(status), byref(name)) or name.value is None
        return str(status) if unknown else str((name.value or b"").decode())


def library() -> Any:
    """The driver; Lacking where there is none."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise Lacking(f"running engines needs NVIDIA's driver ({error}); install it and restart") from None
