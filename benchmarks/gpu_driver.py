"""The agent's CUDA driver (`morvit_deploy/agent/trt/driver.py`) against a real one: no TensorRT, no compiler.

What is recorded and launched are fills of device memory by the driver itself, and a kernel of PyTorch on the agent's
own stream. PyTorch's view of the same GPU is the other side of each comparison.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from morvit_deploy.agent.core.faults import Lacking
from morvit_deploy.agent.trt.build import this_device
from morvit_deploy.agent.trt.driver import Cuda

MEBIBYTES = 64
SLACK = 4 << 20  # bytes that the driver may keep for itself
REPLAYS = 5


def driver(save: Callable[[str, dict[str, Any]], None]) -> None:
    """Run every check; `save` is called with its name and {"ok": …, "found": …} after each."""
    try:
        cuda = Cuda()
    except Lacking as error:
        save("a driver", {"ok": False, "found": str(error)})
        return
    for name, check in CHECKS.items():
        try:
            save(name, {"ok": True, "found": check(cuda)})
        except (AssertionError, Lacking, OSError, RuntimeError) as error:  # a fault is a result here
            save(name, {"ok": False, "found": f"{type(error).__name__}: {error}"})


def device(cuda: Cuda) -> str:
    found, name = this_device(), torch.cuda.get_device_name(0)
    capability = ".".join(map(str, torch.cuda.get_device_capability(0)))
    assert found == {"name": name, "compute_capability": capability}, (
        f"got {found}, PyTorch says {name} {capability}"
    )
    return f"{name}, compute capability {capability}"


def memory(cuda: Cuda) -> str:
    torch.cuda.synchronize()
    before = torch.cuda.mem_get_info(0)[0]
    address = cuda.allocate(MEBIBYTES << 20)
    during = torch.cuda.mem_get_info(0)[0]
    cuda.free(address)
    after = torch.cuda.mem_get_info(0)[0]
    taken = (before - during) >> 20
    assert taken >= MEBIBYTES and abs(after - before) < SLACK, f"free: {before}, {during}, {after} bytes"
    return f"{MEBIBYTES} MiB allocated and freed; PyTorch saw {taken} MiB taken"


def full_memory(cuda: Cuda) -> str:
    try:
        cuda.allocate(1 << 50)
    except Lacking as error:
        assert "CUDA_ERROR_OUT_OF_MEMORY" in str(error) and "the GPU's memory is full" in str(error), str(
            error
        )
        return str(error)
    raise AssertionError("a pebibyte was allocated")


def copies(cuda: Cuda) -> str:
    sent = np.random.default_rng(0).integers(0, 256, MEBIBYTES << 20, dtype=np.uint8)
    with buffer(cuda, sent.nbytes) as (address, stream):
        cuda.copy_in(address, sent, stream)
        assert np.array_equal(contents(cuda, address, stream, sent.nbytes), sent), "other bytes came back"
    return f"{MEBIBYTES} MiB there and back, equal"


def context(cuda: Cuda) -> str:
    tensor = torch.arange(1000, dtype=torch.float32, device="cuda")
    torch.cuda.synchronize()
    stream, came = cuda.new_stream(), np.zeros(1000, np.float32)
    cuda.copy_out(came, tensor.data_ptr(), stream)
    cuda.synchronise(stream)
    cuda.close(stream)
    assert came.tolist() == list(range(1000)), f"got {came[:4]} …"
    return "memory of a PyTorch tensor read: one primary context"


def events(cuda: Cuda) -> str:
    with buffer(cuda, MEBIBYTES << 20) as (address, stream):
        few, many = (fills_ms(cuda, address, stream, number) for number in (10, 200))
    assert 0 < few < many, f"10 fills took {few} ms, 200 took {many} ms"
    torch_ms = torch_fills_ms(200)
    return f"200 fills of {MEBIBYTES} MiB: {many:.3f} ms; PyTorch's events: {torch_ms:.3f} ms"


def graph(cuda: Cuda) -> str:
    with buffer(cuda, 1024) as (address, stream):
        fill(cuda, address, 1, 1024, stream)
        recorded = cuda.captured(stream, lambda: fill(cuda, address, 7, 1024, stream))
        held = set(contents(cuda, address, stream, 1024).tolist())
        assert held == {1}, f"recording ran the fill: {held}"
        cuda.launch(recorded, stream)
        held = set(contents(cuda, address, stream, 1024).tolist())
        assert held == {7}, f"the launch left {held}"
        cuda.forget(recorded)
    return "a fill recorded, not run; run by its launch"


def kernel(cuda: Cuda) -> str:
    counter, handle = torch.zeros(1 << 20, device="cuda"), cuda.new_stream()
    stream = torch.cuda.ExternalStream(handle)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        counter.add_(1)  # loads the kernel
        cuda.synchronise(handle)
        recorded = cuda.captured(handle, lambda: counter.add_(1))
    for _ in range(REPLAYS):
        cuda.launch(recorded, handle)
    cuda.synchronise(handle)
    cuda.forget(recorded)
    found = counter.unique().tolist()
    assert found == [1.0 + REPLAYS], f"got {found}, expected {1 + REPLAYS}"
    return f"a PyTorch kernel on the agent's stream: recorded once, launched {REPLAYS} times"


def spoiled_recording(cuda: Cuda) -> str:
    with buffer(cuda, 1024) as (address, stream):
        try:
            cuda.captured(stream, lambda: cuda.synchronise(stream))
        except Lacking as error:
            said = str(error)
        else:
            raise AssertionError("a recording that waits for its own stream was accepted")
        fill(cuda, address, 9, 1024, stream)  # the stream still works, and records again
        recorded = cuda.captured(stream, lambda: fill(cuda, address, 8, 1024, stream))
        cuda.launch(recorded, stream)
        cuda.forget(recorded)
        held = set(contents(cuda, address, stream, 1024).tolist())
        assert held == {8}, f"afterwards the stream left {held}"
    return f"refused ({said}); the stream works afterwards"


CHECKS: dict[str, Callable[[Cuda], str]] = {
    "device": device,
    "memory": memory,
    "more memory than there is": full_memory,
    "copies": copies,
    "context": context,
    "events": events,
    "CUDA graph of the driver's own work": graph,
    "CUDA graph of a kernel": kernel,
    "a recording that fails": spoiled_recording,
}


@contextmanager
def buffer(cuda: Cuda, size: int) -> Iterator[tuple[int, int]]:
    """Address of `size` bytes and a stream, given back."""
    address, stream = cuda.allocate(size), cuda.new_stream()
    try:
        yield address, stream
    finally:
        cuda.close(stream)
        cuda.free(address)


def fill(cuda: Cuda, address: int, value: int, size: int, stream: int) -> None:
    """Set bytes on the device, through the library that `cuda` has loaded."""
    arguments = (
        ctypes.c_uint64(address),
        ctypes.c_ubyte(value),
        ctypes.c_size_t(size),
        ctypes.c_void_p(stream),
    )
    cuda._call("cuMemsetD8Async", *arguments)


def contents(cuda: Cuda, address: int, stream: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes on the device."""
    came = np.zeros(size, np.uint8)
    cuda.copy_out(came, address, stream)
    cuda.synchronise(stream)
    return came


def fills_ms(cuda: Cuda, address: int, stream: int, number: int) -> float:
    """Milliseconds of a number of fills, by the agent's events."""
    with cuda.event() as before, cuda.event() as after:
        cuda.record(before, stream)
        for _ in range(number):
            fill(cuda, address, 3, MEBIBYTES << 20, stream)
        cuda.record(after, stream)
        return cuda.elapsed_ms(before, after)


def torch_fills_ms(number: int) -> float:
    """The same by PyTorch's events."""
    tensor = torch.zeros(MEBIBYTES << 20, dtype=torch.uint8, device="cuda")
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    before.record()
    for _ in range(number):
        tensor.zero_()
    after.record()
    torch.cuda.synchronize()
    return float(before.elapsed_time(after))
