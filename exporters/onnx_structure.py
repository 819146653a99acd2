"""The structure proof: what the written ONNX file says of itself, against what the unroll promised."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from morvit_deploy.blocks import StaticLinear
from morvit_deploy.bundle import Manifest
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx_macs import PRODUCTS, at_batch, count_macs, infer_shapes
from morvit_deploy.unroll import StaticMoRViT

SCATTERS = ("Scatter", "ScatterElements", "ScatterND")
FORBIDDEN = ("NonZero", "Loop", "Scan", "If", *SCATTERS, "Unique", "Compress")
HELD_ELEMENTS = 4096  # an initializer of this size or more must be one of the model's own weights
SIZE_FACTOR, SIZE_SLACK = 1.02, 500_000  # file set against the bytes of the unique parameters


@dataclass
class Facts:
    """Read off the written file."""

    nodes: int
    operators: dict[str, int]
    macs: int  # one image
    weight_uses: dict[str, int]  # initializer -> products that read it
    weight_bytes: int
    file_bytes: int
    violations: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        blocks = {
            n.removesuffix(".fc2.weight"): u for n, u in self.weight_uses.items() if n.endswith(".fc2.weight")
        }
        return {
            "macs": self.macs,
            "proved": not self.violations,
            "violations": self.violations,
            "nodes": self.nodes,
            "operators": self.operators,
            "block_applications": blocks,
            "weight_bytes": self.weight_bytes,
            "file_bytes": self.file_bytes,
        }


def prove(path: Path, manifest: Manifest, graph: StaticMoRViT, macs: int) -> Facts:
    """Read `path` and hold it against the static module it was written from; `macs` is for one image.

    Checked: every weight is stored once and read as often as its block is applied; no operator whose work
    depends on data; no dynamic dimension but the batch; MACs of the graph equal the plan's; file size.
    """
    model = onnx.load(path)
    promised = promised_uses(graph)
    batch = 1 if manifest.batch == "dynamic" else manifest.batch
    fixed = at_batch(model, batch)
    dynamic = _shape_violations(fixed)
    facts = Facts(
        nodes=len(model.graph.node),
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        macs=0 if dynamic else count_macs(fixed) // batch,
        weight_uses=_weight_uses(model),
        weight_bytes=sum(numpy_helper.to_array(init).nbytes for init in model.graph.initializer),
        file_bytes=sum(file.bytes for file in manifest.files),
    )
    facts.violations = [
        *_operator_violations(model, manifest),
        *_sharing_violations(model, facts, promised, _owned(graph)),
        *dynamic,
        *_port_violations(model, manifest.batch == "dynamic"),
        *_probe_violations(model, manifest, graph),
        *_size_violations(facts, promised),
    ]
    if not dynamic and facts.macs != macs:
        facts.violations.append(f"the graph does {facts.macs:,} MACs an image, the plan says {macs:,}")
    return facts


@dataclass(frozen=True)
class Promise:
    """A weight of the static module: its name, how many products read it in one run, its size in bytes."""

    name: str
    uses: int
    bytes: int


def promised_uses(graph: StaticMoRViT) -> dict[str, Promise]:
    """Content key of each weight to what the static module does with it, by running it."""
    uses: Counter[str] = Counter()
    held: dict[str, tuple[str, int]] = {}
    hooks = []
    for name, module in graph.named_modules():
        if isinstance(module, StaticLinear):
            key = _key(module.weight.numpy())
            held[key] = weight_name(f"{name}.weight"), module.weight.nbytes
            hooks.append(module.register_forward_hook(lambda *_, key=key: uses.update([key])))
    graph(example_image(graph, 1 if graph.options.single else 2))
    for hook in hooks:
        hook.remove()
    # a router whose logits nobody reads is not run, and not in the file
    return {key: Promise(name, uses[key], size) for key, (name, size) in held.items() if uses[key]}


def _owned(graph: StaticMoRViT) -> set[str]:
    """Content keys of everything the static module holds, its position constants among them."""
    return {_key(tensor.numpy()) for tensor in graph.state_dict().values()}


def _weight_uses(model: onnx.ModelProto) -> dict[str, int]:
    """Initializer -> products that read it as a factor."""
    weights = [init.name for init in model.graph.initializer if len(init.dims) == 2]
    factors = Counter(
        name for node in model.graph.node if node.op_type in PRODUCTS for name in node.input[:2]
    )
    return {name: factors[name] for name in weights if factors[name]}


def _operator_violations(model: onnx.ModelProto, manifest: Manifest) -> list[str]:
    allowed = SCATTERS if manifest.form == "gather_scatter" else ()  # the baseline is named for it
    return [
        f"node {node.name!r} is a {node.op_type}: its work depends on data"
        for node in model.graph.node
        if node.op_type in FORBIDDEN and node.op_type not in allowed
    ]


def _sharing_violations(
    model: onnx.ModelProto, facts: Facts, promised: dict[str, Promise], owned: set[str]
) -> list[str]:
    found: dict[str, list[str]] = {key: [] for key in promised}
    violations = []
    for init in model.graph.initializer:
        key = _key(numpy_helper.to_array(init))
        if key in promised:
            found[key].append(init.name)
        elif key not in owned and math.prod(init.dims) >= HELD_ELEMENTS:
            readers = [node.name for node in model.graph.node if init.name in node.input]
            violations.append(
                f"initializer {init.name!r} {list(init.dims)} is no weight of the model; read by {readers}"
            )
    for key, promise in promised.items():
        names = found[key]
        actual = sum(facts.weight_uses.get(name, 0) for name in names)
        if len(names) != 1:
            violations.append(f"weight {promise.name!r} is stored {len(names)} times, expected once: {names}")
        elif actual != promise.uses:
            readers = [node.name for node in model.graph.node if names[0] in node.input]
            violations.append(
                f"weight {names[0]!r} is applied {actual} times, expected {promise.uses}; by {readers}"
            )
    return violations


def _shape_violations(model: onnx.ModelProto) -> list[str]:
    try:
        shapes = infer_shapes(model)
    except shape_inference.InferenceError as error:
        return [f"shapes do not fit: {str(error).splitlines()[0]}"]
    return [
        f"value {name!r} has dynamic dimensions: {list(shape)}"
        for name, shape in shapes.items()
        if not all(isinstance(dim, int) for dim in shape)
    ]


def _port_violations(model: onnx.ModelProto, dynamic: bool) -> list[str]:
    """The batch, axis 0 of inputs and outputs, is dynamic if promised; no other dimension ever is."""
    violations = []
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") == (dynamic and axis == 0):
                found = dim.dim_value if dim.HasField("dim_value") else f"dynamic ({dim.dim_param!r})"
                violations.append(f"dimension {axis} of {value.name!r} is {found}")
    return violations


def _probe_violations(model: onnx.ModelProto, manifest: Manifest, graph: StaticMoRViT) -> list[str]:
    """Every value that `verify` can look at is listed: none may be left out of the comparison."""
    named = set(graph(example_image(graph, 1 if graph.options.single else 2))) - {"logits", "depth"}
    inside = {name for node in model.graph.node for name in node.output}
    differing = sorted((named & inside) ^ set(manifest.probes))
    return [f"the manifest's probes and the graph's values differ in {differing}"] if differing else []


def _size_violations(facts: Facts, promised: dict[str, Promise]) -> list[str]:
    limit = int(SIZE_FACTOR * sum(promise.bytes for promise in promised.values()) + SIZE_SLACK)
    if facts.file_bytes <= limit:
        return []
    return [f"the files take {facts.file_bytes:,} bytes, at most {limit:,} expected"]


def weight_name(name: str) -> str:
    """The static module's blocks.cycle_0.fc1.weight as the file names it: cycle.0.fc1.weight."""
    return name.removeprefix("blocks.").replace("cycle_", "cycle.").replace(".layers", "")


def _key(array: NDArray) -> str:
    """Shape and content."""
    return f"{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
