"""The driver's functions as C sees them: ctypes calls a compiled stand-in whose prototypes are those of cuda.h."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from morvit_deploy.agent.core.faults import Lacking
from morvit_deploy.agent.trt import driver as cuda_driver

# Handles are addresses, mostly of more than 32 bits: an argument of the wrong width is another one.
STAND_IN = """
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
typedef int CUresult; typedef int CUdevice; typedef unsigned long long CUdeviceptr;
typedef struct thing { int kind; int ran; } *thing;
enum { CONTEXT = 1, STREAM, EVENT, GRAPH, READY };
static int made[6];
static thing make(int kind) { thing it = calloc(1, sizeof *it); it->kind = kind; made[kind]++; return it; }
static CUresult end(thing it, int kind) {
  if (!it || it->kind != kind) return 400; made[kind]--; it->kind = 0; return 0; }
static CUresult is(thing it, int kind) { return it && it->kind == kind ? 0 : 400; }
int left(void) { return made[STREAM] + made[EVENT] + made[GRAPH] + made[READY]; }
CUresult cuInit(unsigned flags) { return flags; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return 0; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = 5; return ordinal; }
CUresult cuDevicePrimaryCtxRetain(thing *context, CUdevice device) {
  *context = make(CONTEXT); return device == 5 ? 0 : 101; }
CUresult cuCtxSetCurrent(thing context) { return is(context, CONTEXT); }
CUresult cuGetErrorName(CUresult error, const char **name) {
  if (error == 2) { *name = "CUDA_ERROR_OUT_OF_MEMORY"; return 0; } *name = NULL; return 1; }
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
  if (size >> 32) return 2; *address = (CUdeviceptr)malloc(size); return 0; }
CUresult cuMemFree_v2(CUdeviceptr address) { free((void *)address); return 0; }
CUresult cuStreamCreate(thing *stream, unsigned flags) { *stream = make(STREAM); return flags; }
CUresult cuStreamDestroy_v2(thing stream) { return end(stream, STREAM); }
CUresult cuStreamSynchronize(thing stream) { return is(stream, STREAM); }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, thing stream) {
  memcpy((void *)to, from, size); return is(stream, STREAM); }
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, thing stream) {
  memcpy(to, (void *)from, size); return is(stream, STREAM); }
CUresult cuStreamBeginCapture_v2(thing stream, int mode) { return mode == 1 ? is(stream, STREAM) : 401; }
CUresult cuStreamEndCapture(thing stream, thing *graph) { *graph = make(GRAPH); return is(stream, STREAM); }
CUresult cuGraphInstantiateWithFlags(thing *ready, thing graph, unsigned long long flags) {
  *ready = make(READY); return flags ? 1 : is(graph, GRAPH); }
CUresult cuGraphDestroy(thing graph) { return end(graph, GRAPH); }
CUresult cuGraphLaunch(thing ready, thing stream) { return is(ready, READY) || is(stream, STREAM); }
CUresult cuGraphExecDestroy(thing ready) { return end(ready, READY); }
CUresult cuEventCreate(thing *event, unsigned flags) { *event = make(EVENT); return flags; }
CUresult cuEventDestroy_v2(thing event) { return end(event, EVENT); }
CUresult cuEventRecord(thing event, thing stream) { event->ran = 1; return is(event, EVENT) || is(stream, STREAM); }
CUresult cuEventSynchronize(thing event) { return is(event, EVENT); }
CUresult cuEventElapsedTime(float *ms, thing before, thing after) {
  *ms = before->ran && after->ran ? 1.5f : -1.0f; return is(before, EVENT) || is(after, EVENT); }
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    (tmp_path / "cuda.c").write_text(STAND_IN)
    place = tmp_path / "libcuda.so.1"
    build = [compiler, "-shared", "-fPIC", "-w", "-o", str(place), str(tmp_path / "cuda.c")]
    subprocess.run(build, check=True)
    monkeypatch.setattr(cuda_driver, "LIBRARY", str(place))
    return ctypes.CDLL(str(place))


def test_every_function_as_c_sees_it(stand_in: ctypes.CDLL) -> None:
    cuda = cuda_driver.Cuda()
    stream, sent = cuda.new_stream(), np.arange(1000, dtype=np.float32)
    address = cuda.allocate(sent.nbytes)
    cuda.copy_in(address, sent, stream)
    came = np.zeros_like(sent)
    cuda.copy_out(came, address, stream)
    cuda.synchronise(stream)
    np.testing.assert_array_equal(came, sent)
    graph = cuda.captured(stream, lambda: None)
    with cuda.event() as before, cuda.event() as after:
        cuda.record(before, stream)
        cuda.launch(graph, stream)
        cuda.record(after, stream)
        assert cuda.elapsed_ms(before, after) == 1.5
    cuda.forget(graph)
    cuda.free(address)
    cuda.close(stream)
    assert stand_in.left() == 0


def test_failures_have_names(stand_in: ctypes.CDLL) -> None:
    cuda = cuda_driver.Cuda()
    with pytest.raises(
        Lacking, match=r"cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY; the GPU's memory is full"
    ):
        cuda.allocate(1 << 40)
    with pytest.raises(Lacking, match="cuStreamSynchronize failed: 400"):
        cuda.synchronise(0)


def test_a_failed_recording_ends_and_leaves_nothing(stand_in: ctypes.CDLL) -> None:
    cuda = cuda_driver.Cuda()
    stream = cuda.new_stream()
    with pytest.raises(ZeroDivisionError):
        cuda.captured(stream, lambda: 1 // 0)
    cuda.forget(cuda.captured(stream, lambda: None))
    cuda.close(stream)
    assert stand_in.left() == 0
