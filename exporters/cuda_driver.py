"""Device memory, streams, graphs and events through NVIDIA's own cuda-python, loaded when it is used. No torch.

Only what the TensorRT runner and the GPU bench call. Addresses and handles are plain integers.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from morvit_deploy.errors import TargetError

INSTALL = 'python -m pip install "cuda-python>=12.3"'


class Cuda:
    """The first GPU. TargetError when cuda-python or the driver is missing, or a call fails."""

    def __init__(self) -> None:
        self._api = _runtime()
        (count,) = self._call("cudaGetDeviceCount")
        if not count:
            raise TargetError("CUDA sees no GPU; check `nvidia-smi` and CUDA_VISIBLE_DEVICES")

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the device."""
        return int(self._call("cudaMalloc", max(size, 1))[0])

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cudaFree", address)

    def new_stream(self) -> int:
        """Handle of a new stream."""
        return int(self._call("cudaStreamCreate")[0])

    def copy_in(self, address: int, array: NDArray, stream: int) -> None:
        """Host to device; the array must live until the stream is synchronised."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def copy_out(self, array: NDArray, address: int, stream: int) -> None:
        """Device to host, into a contiguous array."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def synchronise(self, stream: int) -> None:
        """Wait for all work on a stream."""
        self._call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """Work put on the stream from here on is recorded, not run."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> Any:
        """The recorded work, ready to launch. TargetError when something on the stream could not be recorded."""
        (graph,) = self._call("cudaStreamEndCapture", stream)
        return self._call("cudaGraphInstantiate", graph, 0)[0]

    def launch(self, graph: Any, stream: int) -> None:
        """Run recorded work."""
        self._call("cudaGraphLaunch", graph, stream)

    def new_event(self) -> Any:
        """A point in time of a stream."""
        return self._call("cudaEventCreate")[0]

    def record(self, event: Any, stream: int) -> None:
        """Put the event behind what is on the stream."""
        self._call("cudaEventRecord", event, stream)

    def elapsed_ms(self, before: Any, after: Any) -> float:
        """Milliseconds on the device between two events; waits for the second."""
        self._call("cudaEventSynchronize", after)
        return float(self._call("cudaEventElapsedTime", before, after)[0])

    def close(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cudaStreamDestroy", stream)

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Every function answers its status first."""
        status, *values = getattr(self._api, name)(*arguments)
        if int(status) != 0:
            raise TargetError(f"{name} failed: {getattr(status, 'name', status)}{_hint(int(status))}")
        return tuple(values)


def _hint(status: int) -> str:
    """What to do, for statuses whose name does not say it (driver_types.h)."""
    hints = {
        2: "; the GPU's memory is full: close what else uses it, or run a smaller batch",
        35: "; the driver is older than this CUDA: update the driver, or install an older cuda-python",
        100: "; there is no GPU that CUDA can use",
    }
    return hints.get(status, "")


def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise TargetError(f"running engines needs cuda-python ({error}); run `{INSTALL}`") from None
    return runtime
