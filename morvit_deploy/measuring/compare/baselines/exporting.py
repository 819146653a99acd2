"""A baseline as an ONNX file by the plain path: torch.onnx.export for one image, without any rewrite of ours.

The only thing in front of the model is what our graphs have, too: pixels in, normalised inside. Files are kept in a
folder of the user's and written completely or not at all.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.errors import ParityError, TargetError
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.onnx.graphs.macs import quiet_stderr
from morvit_deploy.exporters.onnx.graphs.names import GRAPH as BUNDLE_GRAPH
from morvit_deploy.exporters.onnx.graphs.plain import read_graph
from morvit_deploy.exporters.onnx.graphs.portable import OPSET
from morvit_deploy.exporters.onnx.graphs.trace import quiet_loggers
from morvit_deploy.files import new_folder, temporary
from morvit_deploy.measuring.compare.baselines.ablation import ablated, untie
from morvit_deploy.measuring.compare.baselines.names import Baseline
from morvit_deploy.measuring.compare.baselines.published import UNTIED
from morvit_deploy.measuring.compare.baselines.zoo import Built, build
from morvit_deploy.model.checkpoint import init_model, save_checkpoint
from morvit_deploy.model.presets import preset
from morvit_deploy.strict_json import read_json

FORMAT = "morvit-baseline/2"
GRAPH, RECORD = "model.onnx", "baseline.json"
TOLERANCE = 1e-4  # × max(1, max |logit|): float32 round-off in another order, as for our own graphs
CHECKED = 2  # pictures
OURS = ("preset", "ablation")  # kinds that our own exporter writes


@dataclass(frozen=True)
class Exported:
    """An ONNX file of a baseline, and what its module had."""

    graph: Path
    parameters: int
    size: int  # pixels
    max_abs: float  # largest |Δlogit| between ONNX Runtime and the module


class FromPixels(nn.Module):
    """Pixels uint8 (batch, height, width, 3) to logits, with the normalisation of the model in front of it."""

    mean: Tensor
    std: Tensor

    def __init__(self, built: Built) -> None:
        super().__init__()
        self.model = built.module
        self.register_buffer("mean", torch.tensor(built.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(built.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        scaled = image.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        logits: Tensor = self.model((scaled - self.mean) / self.std)
        return logits


def exported(baseline: Baseline, seed: int, folder: Path, *, any_batch: bool = False) -> Exported:
    """The baseline's file in `folder`, which is made unless it is there: for one picture, or for any number of them.

    Raises ParityError where ONNX Runtime computes other logits than the module, TargetError where PyTorch cannot
    export it, and what building raises.
    """
    place = folder / _name(baseline, seed, any_batch)
    if not (place / RECORD).is_file():
        with new_folder(place, marker=RECORD) as partial:
            if baseline.kind in OURS:
                _write_ours(baseline, seed, partial, any_batch)
            else:
                _write(build(baseline, seed), baseline, partial, any_batch)
    found: Any = read_json(place / RECORD)
    return Exported(place / GRAPH, found["parameters"], found["image_size"], found["max_abs"])


def _name(baseline: Baseline, seed: int, any_batch: bool = False) -> str:
    """A folder's name, another one for other weights, other code or another release of what builds it."""
    files = [path for path in (baseline.weights, baseline.path) if path is not None]
    content = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    library = version("timm") if baseline.kind == "timm" else ""
    if baseline.kind in OURS:
        library = version("morvit-deploy")
    made_of = (FORMAT, baseline.name, seed, *content, library, version("torch"))
    batch = "-batches" if any_batch else ""
    return f"{baseline.name}{batch}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}"


def _write_ours(baseline: Baseline, seed: int, folder: Path, any_batch: bool) -> None:
    """One of our own architectures with random weights, exported by us, with its proof and verification."""
    config = ablated(baseline.name) if baseline.kind == "ablation" else preset(baseline.name)
    model = init_model(config, seed)
    with temporary("baseline") as scratch:
        save_checkpoint(model, scratch / "checkpoint")
        batch: Any = "dynamic" if any_batch else 1
        outcome = export(scratch / "checkpoint", scratch / "bundle", target="onnx", batch=batch)
        graph = read_graph(scratch / "bundle" / BUNDLE_GRAPH, weights=True)
        added = untie(graph) if baseline.name == UNTIED else 0
        onnx.save_model(graph, folder / GRAPH)
        if added:
            _check_untied(outcome.folder / BUNDLE_GRAPH, folder / GRAPH, config.image_shape[0])
        gap = open_manifest(scratch / "bundle").parity
    assert gap is not None
    parameters = added + sum(parameter.numel() for parameter in model.parameters())
    _record(baseline, folder, parameters, model.config.image_shape[0], gap["conversion_gap"]["max_abs"])


def _check_untied(shared: Path, untied: Path, size: int) -> None:
    """ParityError unless both return the same logits: the second only has more copies of weights."""
    pictures = noise(CHECKED, size)
    wanted, found = (_logits(graph, np.split(pictures, CHECKED)) for graph in (shared, untied))
    if not np.abs(found - wanted).max() <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise ParityError(
            f"{untied.name}: with weights of its own in each step, the graph returns other logits"
        )


def _write(built: Built, baseline: Baseline, folder: Path, any_batch: bool) -> None:
    module = FromPixels(built).eval()
    pictures = torch.from_numpy(noise(CHECKED, built.size))
    traced = _traced(module, pictures if any_batch else pictures[:1], any_batch, baseline.name)
    onnx.save_model(traced, folder / GRAPH)
    gap = max(
        _checked(module, pictures, folder / GRAPH, baseline.name, at_once)
        for at_once in ((1, CHECKED) if any_batch else (1,))  # a batch that the exporter has fixed is refused
    )
    _record(baseline, folder, built.parameters, built.size, gap)


def _record(baseline: Baseline, folder: Path, parameters: int, size: int, gap: float) -> None:
    record = {
        "format": FORMAT, "name": baseline.name, "parameters": parameters, "image_size": size, "max_abs": gap,
        "files": [GRAPH],
    }  # fmt: skip  # a list of names
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def noise(count: int, size: int) -> NDArray[np.uint8]:
    """Random pixels (count, size, size, 3): no two patches are alike, so that no sampling or clustering has ties."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _traced(module: nn.Module, image: Tensor, any_batch: bool, name: str) -> onnx.ModelProto:
    batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if any_batch else {}
    try:
        return _exported_by_torch(module, image, batch)
    except Exception as error:  # torch.export and torch.onnx raise many types
        what = "a batch of any size" if any_batch else "one picture"
        raise TargetError(
            f"{name}: PyTorch {torch.__version__} cannot export it to ONNX for {what}: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _exported_by_torch(module: nn.Module, image: Tensor, batch: dict[str, Any]) -> onnx.ModelProto:
    with warnings.catch_warnings(), quiet_loggers("torch.onnx", "onnxscript", "onnx_ir"), quiet_stderr():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; the result is checked below
        program = torch.onnx.export(
            module, (image,), input_names=["image"], output_names=["logits"], opset_version=OPSET, dynamo=True,
            verbose=False, **batch,
        )  # fmt: skip  # two lines read better than eight
    assert program is not None
    return program.model_proto


def _checked(module: nn.Module, pictures: Tensor, graph: Path, name: str, at_once: int) -> float:
    """Largest |Δlogit| of ONNX Runtime, `at_once` pictures a run; ParityError beyond TOLERANCE."""
    with torch.no_grad():
        wanted = module(pictures).numpy()
    try:
        found = _logits(graph, np.split(pictures.numpy(), len(pictures) // at_once))
    except Exception as error:  # onnxruntime raises types of its own
        raise TargetError(f"{name}: ONNX Runtime {ort.__version__} refuses its graph: {error}") from error
    gap, scale = float(np.abs(found - wanted).max()), max(1.0, float(np.abs(wanted).max()))
    if not gap <= TOLERANCE * scale:
        raise ParityError(
            f"{name}: the exported graph differs from the module by {gap:.2e} in ONNX Runtime, expected at most "
            f"{TOLERANCE * scale:.2e}; compare the releases of PyTorch and ONNX Runtime"
        )
    return gap


def _logits(graph: Path, runs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Of the pictures of all runs (pictures, classes)."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], {"image": own})[0] for own in runs])
