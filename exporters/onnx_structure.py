"""The structure proof: what the written ONNX file says of itself, against what the unroll promised."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper, shape_inference

from morvit_deploy.blocks import StaticLinear
from morvit_deploy.bundle import Manifest
from morvit_deploy.exporters.base import example_image
from morvit_deploy.unroll import StaticMoRViT

FORBIDDEN = ("NonZero", "Loop", "Scan", "If", "Scatter", "ScatterElements", "ScatterND", "Unique", "Compress")
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
    facts = _facts(model, batch, sum(file.bytes for file in manifest.files))
    facts.violations = [
        *_operator_violations(model),
        *_sharing_violations(model, facts, promised),
        *_shape_violations(model, manifest.batch == "dynamic"),
    ]
    if facts.macs != macs:
        facts.violations.append(f"the graph does {facts.macs:,} MACs an image, the plan says {macs:,}")
    limit = int(SIZE_FACTOR * sum(size for size, _ in promised.values()) + SIZE_SLACK)
    if facts.file_bytes > limit:
        facts.violations.append(f"the files take {facts.file_bytes:,} bytes, at most {limit:,} expected")
    return facts


def promised_uses(graph: StaticMoRViT) -> dict[str, tuple[int, int]]:
    """Content hash of each weight -> (its bytes, how many products read it), from a run of the static module."""
    uses: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    hooks = []
    for module in graph.modules():
        if isinstance(module, StaticLinear):
            content = module.weight.numpy()
            key = _hash(content.tobytes())
            sizes[key] = content.nbytes
            hooks.append(module.register_forward_hook(lambda *_, key=key: uses.update([key])))
    graph(example_image(graph, 1 if graph.options.single else 2))
    for hook in hooks:
        hook.remove()
    return {key: (sizes[key], uses[key]) for key in sizes}


def count_macs(model: onnx.ModelProto) -> int:
    """MACs of every MatMul, Gemm and Conv; needs shapes, see `with_shapes`."""
    shapes = _shapes(model)
    return sum(_node_macs(node, shapes) for node in model.graph.node)


def with_shapes(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model with every shape inferred, a dynamic batch set to `batch`; weights are dropped."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for value in (*bare.graph.input, *bare.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = batch
    del bare.graph.value_info[:]
    return shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)


def _facts(model: onnx.ModelProto, batch: int, file_bytes: int) -> Facts:
    shaped = with_shapes(model, batch)
    weights = {init.name: init for init in model.graph.initializer if len(init.dims) == 2}
    uses = Counter(name for node in model.graph.node if node.op_type in _PRODUCTS for name in node.input)
    return Facts(
        nodes=len(model.graph.node),
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        macs=count_macs(shaped) // batch,
        weight_uses={name: uses[name] for name in weights if uses[name]},
        weight_bytes=sum(numpy_helper.to_array(init).nbytes for init in model.graph.initializer),
        file_bytes=file_bytes,
    )


def _operator_violations(model: onnx.ModelProto) -> list[str]:
    return [
        f"node {node.name!r} is a {node.op_type}: its work depends on data"
        for node in model.graph.node
        if node.op_type in FORBIDDEN
    ]


def _sharing_violations(
    model: onnx.ModelProto, facts: Facts, promised: dict[str, tuple[int, int]]
) -> list[str]:
    found: dict[str, list[str]] = {}
    violations = []
    for init in model.graph.initializer:
        key = _hash(numpy_helper.to_array(init).tobytes())
        if key in promised:
            found.setdefault(key, []).append(init.name)
        elif len(init.dims) == 2 and math.prod(init.dims) >= HELD_ELEMENTS:
            readers = [node.name for node in model.graph.node if init.name in node.input]
            violations.append(
                f"initializer {init.name!r} {list(init.dims)} is no weight of the model; read by {readers}"
            )
    for key, (size, uses) in promised.items():
        names = found.get(key, [])
        actual = sum(facts.weight_uses.get(name, 0) for name in names)
        if len(names) != 1 and size >= 4 * HELD_ELEMENTS:
            violations.append(f"a weight of {size:,} bytes is stored {len(names)} times: {names}")
        elif actual != uses:
            violations.append(f"weight {names} is applied {actual} times, expected {uses}")
    return violations


def _shape_violations(model: onnx.ModelProto, dynamic_batch: bool) -> list[str]:
    shaped = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    violations = []
    for value in (*shaped.graph.input, *shaped.graph.value_info, *shaped.graph.output):
        unknown = [
            d.dim_param or "?" for d in value.type.tensor_type.shape.dim if not d.HasField("dim_value")
        ]
        if unknown and not dynamic_batch:
            violations.append(f"value {value.name!r} has dynamic dimensions {unknown}")
    return violations


_PRODUCTS = ("MatMul", "Gemm", "Conv")


def _node_macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    if node.op_type not in _PRODUCTS:
        return 0
    out, weight = math.prod(shapes[node.output[0]]), shapes[node.input[1]]
    if node.op_type == "Conv":
        return out * math.prod(weight[1:])
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return out * (weight[-1] if transposed else weight[-2])


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    return shapes | {init.name: list(init.dims) for init in model.graph.initializer}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
