"""What makes thousands of exports in one run faster, and changes none of them.

Exporting a tiny model takes seconds, nearly all of them in PyTorch's tracer and in coremltools. Tests trace the same
module again and again, for another precision, target or command. So a run keeps what was traced from a module: the
same weights, structure and shapes give the same graph. Tests of determinism trace anew, within `traced_anew`.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from morvit_deploy.exporters.base import YOUNG
from morvit_deploy.exporters.coreml.mlpackage import convert as coreml
from morvit_deploy.exporters.onnx import run as onnx_run
from morvit_deploy.exporters.onnx.graphs import assembly
from morvit_deploy.exporters.onnx.graphs import trace as tracing
from morvit_deploy.machine.this import checked_threads

FOLDER = "MORVIT_TEST_TRACES"  # environment: a folder that the processes of one run have in common
_anew = False


def speed_up() -> None:
    """Collect less often, keep ONNX traces, and check programs less often.

    Programs for Core ML are not kept: 76 of 77 are different ones, and keeping one takes 0.6 s.
    coremltools checks its whole program after each of 90 passes; the package that results is read and run by the
    tests. It collects garbage after each conversion, half a second in a process that holds all libraries.
    Threads of a runtime wait for each other where graphs are tiny and each core has a process of its own: a session
    has one unless a test asks for more. Programs that tests start have one of OpenMP.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)
    tracing.trace = assembly.trace = _kept(tracing.trace)
    coreml._exported = _unchecked(coreml._exported)
    onnx_run.checked_threads = lambda wanted: checked_threads(wanted or 1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextmanager
def traced_anew() -> Iterator[None]:
    """Within it nothing is taken from earlier traces."""
    global _anew
    before, _anew = _anew, True
    try:
        yield
    finally:
        _anew = before


def _kept(trace: Callable[..., Any]) -> Callable[..., Any]:
    """`trace`, with results kept as files that are named by what was traced."""

    @functools.wraps(trace)
    def kept(module: nn.Module, example: Sequence[Tensor], **options: Any) -> Any:
        folder = os.environ.get(FOLDER)
        if folder is None or _anew:
            return trace(module, example, **options)
        path = Path(folder) / f"{trace.__name__}-{_key(module, example, options)}"
        if path.exists():
            return pickle.loads(path.read_bytes())
        result = trace(module, example, **options)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps(result))
        part.rename(path)
        return result

    return kept


def _key(module: nn.Module, example: Sequence[Tensor], options: dict[str, Any]) -> str:
    """The same for modules of equal classes, settings and weights that take inputs of equal shapes and types."""
    data = io.BytesIO()
    torch.save(module, data)
    inputs = [(tuple(value.shape), value.dtype) for value in example]
    digest = hashlib.sha256(repr((inputs, options)).encode())
    with zipfile.ZipFile(data) as archive:
        for name in sorted(archive.namelist()):
            digest.update(archive.read(name))
    return digest.hexdigest()[:32]


def _unchecked(trace: Callable[..., Any]) -> Callable[..., Any]:
    """`trace`, which first turns coremltools' checks and collections off; it is loaded by then."""

    @functools.wraps(trace)
    def unchecked(*given: Any) -> Any:
        from coremltools.converters import _converters_entry
        from coremltools.converters.mil.mil.program import Program

        _converters_entry.gc = SimpleNamespace(collect=lambda: None)
        Program.validate = lambda self, **_: None
        return trace(*given)

    return unchecked
