"""What runs a graph or a checkpoint as pixels to logits: ONNX Runtime, OpenVINO, PyTorch.

A runtime is imported when it is opened: only the one that a process measures. All compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays, normalise
from morvit_deploy.agent.serving import Model
from morvit_deploy.errors import TargetError

ONNX_RUNTIME, OPENVINO, EAGER, COMPILE = "onnxruntime", "openvino", "eager", "compile"
Feed = Callable[
    [NDArray[np.uint8]], NDArray[Any]
]  # pixels to a graph's input; called before the clock starts
Opened = tuple[Model, Feed]


def check_installed(runtime: str) -> None:
    """TargetError where OpenVINO is asked for and not installed."""
    from importlib.util import find_spec

    if runtime == OPENVINO and find_spec("openvino") is None:
        raise TargetError("openvino: is not installed in this Python; run `pip install openvino`")


def open_runtime(runtime: str, path: Path, threads: int) -> Opened:
    """Open an ONNX file, or for EAGER and COMPILE a checkpoint folder; TargetError if it is refused."""
    openers = {ONNX_RUNTIME: _onnx_runtime, OPENVINO: _openvino, EAGER: _eager, COMPILE: _compiled}
    return openers[runtime](path, threads)


def _onnx_runtime(path: Path, threads: int) -> Opened:
    session, (taken, *_) = _session(path, threads)
    names = [output.name for output in session.get_outputs()]
    logits = names.index("logits") if "logits" in names else 0

    def run(fed: NDArray[Any]) -> Arrays:
        return {"logits": session.run(names, {taken.name: fed})[logits]}

    return Model(run, (), lambda: None), _feed_of(path, taken.type, taken.shape)


def _session(path: Path, threads: int) -> tuple[Any, list[Any]]:
    """A session with the options of our bundles', and its inputs: one, which takes pictures."""
    import onnxruntime as ort

    from morvit_deploy.agent.run_ort import session_options

    try:
        session = ort.InferenceSession(
            str(path), session_options(path.parent, threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime and protobuf raise types of their own
        raise TargetError(f"ONNX Runtime {ort.__version__} refuses {path}: {error}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise TargetError(f"{path} has {len(inputs)} inputs, expected one that takes pictures")
    return session, inputs


def _feed_of(path: Path, dtype: str, shape: list[Any]) -> Feed:
    """Pixels as they are where the graph takes them, else float32 images of the ImageNet normalisation."""
    if len(shape) == 4 and dtype == "tensor(uint8)" and shape[3] == 3:
        return np.ascontiguousarray
    if len(shape) == 4 and dtype == "tensor(float)" and shape[1] == 3:
        return lambda pixels: normalise(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    raise TargetError(
        f"{path} takes {dtype} {shape}, expected uint8 (1, height, width, 3) or float (1, 3, height, width)"
    )


def taken_by(path: Path) -> tuple[int, bool]:
    """Width and height of the pictures that an ONNX file takes, and whether it takes any number of them.

    TargetError if ONNX Runtime refuses the file.
    """
    _, (taken,) = _session(path, 1)
    _feed_of(path, taken.type, taken.shape)
    batch, _, side, _ = taken.shape
    if not isinstance(side, int):
        raise TargetError(f"{path} takes pictures of any size ({taken.shape}); export it for one size")
    if isinstance(batch, int) and batch != 1:
        raise TargetError(f"{path} takes {batch} pictures at once; export it for one, or for any number")
    return side, not isinstance(batch, int)


def _openvino(path: Path, threads: int) -> Opened:
    check_installed(OPENVINO)
    import openvino

    how = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    try:
        request = openvino.Core().compile_model(str(path), "CPU", how).create_infer_request()
    except Exception as error:  # its own types
        raise TargetError(f"OpenVINO {openvino.__version__} refuses {path}: {error}") from error

    def run(fed: NDArray[Any]) -> Arrays:
        return {"logits": np.array(request.infer({0: fed}, share_inputs=True, share_outputs=True)["logits"])}

    return Model(run, (), lambda: None), np.ascontiguousarray


def _eager(path: Path, threads: int) -> Opened:
    return _of_torch(path, threads, compiled=False)


def _compiled(path: Path, threads: int) -> Opened:
    return _of_torch(path, threads, compiled=True)


def _of_torch(path: Path, threads: int, *, compiled: bool) -> Opened:
    """The checkpoint as training code runs it: every token in every layer, tokens that have left masked."""
    import torch

    from morvit_deploy.graph.baselines import build_graph
    from morvit_deploy.graph.style.styles import Options
    from morvit_deploy.model.checkpoint import load_checkpoint
    from morvit_deploy.model.plan import own_plan

    torch.set_num_threads(threads)
    model = load_checkpoint(path)
    module: Any = build_graph("masked", model, own_plan(model.config).buckets[0], Options())
    module = torch.compile(module) if compiled else module

    def run(fed: NDArray[Any]) -> Arrays:
        with torch.inference_mode():
            return {"logits": module(torch.from_numpy(fed))["logits"].numpy()}

    return Model(run, (), lambda: None), np.ascontiguousarray
