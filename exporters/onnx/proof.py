"""The structure proof: what the written ONNX file says of itself, against what the unroll promised."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import external_data_helper, numpy_helper, shape_inference

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph, weight_name
from morvit_deploy.exporters.onnx.graphs.macs import PRODUCTS, at_batch, count_macs, infer_shapes
from morvit_deploy.exporters.onnx.graphs.names import graph_files
from morvit_deploy.exporters.onnx.graphs.plain import plain_graph, read_graph
from morvit_deploy.exporters.onnx.proof_precision import (
    Integers,
    Promise,
    half_violations,
    integer_violations,
    read_integers,
)
from morvit_deploy.graph.style.blocks import StaticLinear
from morvit_deploy.graph.unroll import RESULTS, StaticMoRViT
from morvit_deploy.model.macs import dense_macs, last_step_is_cls_alone, schedule_macs
from morvit_deploy.model.precision import Lowering

SCATTERS = ("Scatter", "ScatterElements", "ScatterND")
FORBIDDEN = ("NonZero", "Loop", "Scan", *SCATTERS, "Unique", "Compress")
BFLOAT16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
HELD_ELEMENTS = 4096  # an initializer of this size or more must be one of the model's own weights
SIZE_FACTOR, SIZE_SLACK = 1.02, 500_000  # file set against the bytes of the unique parameters; slack a bucket


@dataclass
class Facts:
    """Read off the written files."""

    nodes: int
    operators: dict[str, int]
    macs: dict[str, int]  # one image, for each bucket
    block_applications: dict[str, int]  # the same in every bucket
    weight_bytes: int
    file_bytes: int
    violations: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {"proved": not self.violations, **asdict(self)}


def prove(folder: Path, manifest: Manifest, graphs: dict[str, StaticMoRViT]) -> Facts:
    """Read a bundle's files and hold them against the static modules they were written from.

    Checked for each bucket: every weight is read as often as its block is applied; no operator whose work
    depends on data; no dynamic dimension but the batch; MACs equal the plan's. Checked for all: each weight is stored
    once, however many buckets read it; the only Ifs are those that choose the bucket; file size.
    """
    files = graph_files(manifest.dispatch, manifest.plan)
    parts = {part: read_graph(folder / name) for part, name in files.items()}
    models = list(parts.values())
    nodes = [node for model in models for graph in every_graph(model.graph) for node in graph.node]
    facts = Facts(
        nodes=len(nodes),
        operators=dict(Counter(node.op_type for node in nodes).most_common()),
        macs={},
        block_applications={},
        weight_bytes=_stored_bytes(models),
        file_bytes=sum(file.bytes for file in manifest.files),
    )
    facts.violations += _operator_violations(nodes, manifest)
    for model in models:
        facts.violations += _port_violations(model, manifest.batch == "dynamic")
    facts.violations += _table_violations(parts.get("stem") or parts["model"], manifest, folder)
    promised: dict[str, Promise] = {}
    compared: set[float] = set()
    integers: dict[str, str] = {}  # content key of an int8 weight to the weight's name
    for bucket, graph in graphs.items():
        model = plain_graph(folder, manifest, bucket, weights=True)
        uses = promised_uses(graph)
        where = f"bucket {bucket}: " if manifest.plan.adaptive else ""
        facts.violations += [
            where + violation
            for violation in _prove_bucket(model, manifest, bucket, graph, uses, facts, integers)
        ]
        promised |= uses
        compared |= _compared(model)
    facts.violations += _threshold_violations(compared, manifest)
    places = _places(folder, models)
    facts.violations += [
        f"weight {promised[key].name!r} is stored {len(names)} times, expected once: {sorted(names)}"
        for key, names in places.items()
        if key in promised and len(names) != 1 and not promised[key].is_int8(manifest.lowering)
    ]
    facts.violations += [
        f"weight {integers[key]!r} is stored as int8 {len(names)} times, expected once: {sorted(names)}"
        for key, names in places.items()
        if key in integers and len(names) != 1
    ]
    facts.violations += [
        f"a float copy of the int8 weight {promised[key].name!r} is left: {sorted(names)}"
        for key, names in places.items()
        if key in promised and promised[key].is_int8(manifest.lowering)
    ]
    facts.violations += _size_violations(facts, promised, manifest)
    return facts


def _prove_bucket(
    model: onnx.ModelProto,
    manifest: Manifest,
    bucket: str,
    graph: StaticMoRViT,
    promised: dict[str, Promise],
    facts: Facts,
    integers: dict[str, str],
) -> list[str]:
    """Prove the plain graph of one bucket; notes its MACs in `facts` and its int8 weights in `integers`."""
    batch = 1 if manifest.batch == "dynamic" else manifest.batch
    fixed = at_batch(model, batch)
    dynamic = _shape_violations(fixed)
    read = read_integers(model, promised, (manifest.lowering or Lowering()).largest_weight)
    uses = _weight_uses(model, read)
    held = {init.name: init for init in model.graph.initializer if init.name in read.keys}
    integers |= {_key(numpy_helper.to_array(held[n])): promised[key].name for n, key in read.keys.items()}
    facts.macs[bucket] = 0 if dynamic else count_macs(fixed) // batch
    facts.block_applications = {
        name.removesuffix(".fc2.weight"): times
        for name, times in uses.items()
        if name.endswith(".fc2.weight")
    }
    violations = [
        *_sharing_violations(model, uses, promised, _owned(graph), read),
        *dynamic,
        *_probe_violations(model, manifest, bucket, graph),
    ]
    if manifest.precision == "int8":
        assert manifest.lowering is not None
        violations += integer_violations(model, read, promised, manifest.lowering)
    elif read.keys or read.unknown:
        violations.append(f"{manifest.precision} with int8 weights: {sorted([*read.keys, *read.unknown])}")
    if manifest.precision in ("fp16", "bf16"):
        violations += half_violations(fixed)
    macs = _promised_macs(graph, manifest)
    if not dynamic and facts.macs[bucket] != macs:
        violations.append(f"the graph does {facts.macs[bucket]:,} MACs an image, the plan says {macs:,}")
    return violations


def _promised_macs(graph: StaticMoRViT, manifest: Manifest) -> int:
    """MACs of one image, counted from the configuration alone."""
    if manifest.form == "masked":
        return dense_macs(graph.config)
    options = graph.options
    return schedule_macs(
        graph.config, graph.capacity, options.cls_only, options.frozen_keys, routed=graph.routed
    )


def _compared(model: onnx.ModelProto) -> set[float]:
    """The numbers that router logits are compared with."""
    constants = _constants(model.graph, "GreaterOrEqual")
    return {float(array) for array in constants if array.dtype == np.float32 and array.size == 1}


def _threshold_violations(found: set[float], manifest: Manifest) -> list[str]:
    """Router logits are compared, in one bucket or another, with the plan's thresholds and with nothing else."""
    config, thresholds = manifest.config, manifest.plan.thresholds or ()
    told = {float(np.float32(t)) for t in thresholds if t is not None}
    needed = {
        float(np.float32(t))
        for t in (thresholds[:-1] if last_step_is_cls_alone(config) else thresholds)
        if t is not None
    }
    if needed <= found <= told:
        return []
    return [f"router logits are compared with {sorted(found)}, the plan's thresholds are {sorted(told)}"]


def _table_violations(model: onnx.ModelProto, manifest: Manifest, folder: Path) -> list[str]:
    """The stem chooses by the plan's own table: upper bounds, or capacities."""
    plan = manifest.plan
    if not plan.adaptive:
        return []
    table = np.array([bucket.capacity for bucket in plan.buckets])
    if plan.mode == "threshold":
        table = np.array([bucket.upto for bucket in plan.buckets[:-1]])
    found = [array for array in _constants(model.graph, "Greater", folder) if array.dtype == np.int64]
    if any(np.array_equal(array.reshape(-1), table.reshape(-1)) for array in found):
        return []
    return [f"the graph chooses by {[array.tolist() for array in found]}, the plan says {table.tolist()}"]


def _constants(graph: onnx.GraphProto, op_type: str, folder: Path | None = None) -> list[NDArray]:
    """Constants that the nodes of a kind read, not those inside branches; large ones lie in the folder's weights."""
    held = {init.name: init for init in graph.initializer}
    names = {name for node in graph.node if node.op_type == op_type for name in node.input if name in held}
    return [numpy_helper.to_array(held[name], str(folder or "")) for name in sorted(names)]


def _places(folder: Path, models: list[onnx.ModelProto]) -> dict[str, set[str]]:
    """Content key of every initializer, read or not, to the places where it is stored."""
    places: dict[str, set[str]] = {}
    keys: dict[str, str] = {}
    for init in (
        init for model in models for graph in every_graph(model.graph) for init in graph.initializer
    ):
        if math.prod(init.dims) <= 1:
            continue
        place = init.name
        if external_data_helper.uses_external_data(init):
            info = external_data_helper.ExternalDataInfo(init)
            place = f"{info.location} at {info.offset} as {list(init.dims)}"
        if place not in keys:
            if external_data_helper.uses_external_data(init):
                external_data_helper.load_external_data_for_tensor(init, str(folder))
            keys[place] = _key(numpy_helper.to_array(init))
        places.setdefault(keys[place], set()).add(place)
    return places


def _stored_bytes(models: list[onnx.ModelProto]) -> int:
    """Bytes of all initializers; a place in the file of weights counts once."""
    outside: dict[str, int] = {}
    inline = 0
    for model in models:
        for graph in every_graph(model.graph):
            for init in graph.initializer:
                if external_data_helper.uses_external_data(init):
                    place = external_data_helper.ExternalDataInfo(init)
                    outside[f"{place.location}:{place.offset}"] = place.length or 0
                else:
                    inline += numpy_helper.to_array(init).nbytes
    return inline + sum(outside.values())


def promised_uses(graph: StaticMoRViT) -> dict[str, Promise]:
    """Content key of each weight to what the static module does with it, by running it."""
    uses: Counter[str] = Counter()
    held: dict[str, tuple[str, NDArray]] = {}
    hooks = []
    for name, module in graph.named_modules():
        if isinstance(module, StaticLinear):
            values = as_numpy(module.weight)
            key = _key(values)
            held[key] = weight_name(f"{name}.weight"), values
            hooks.append(module.register_forward_hook(lambda *_, key=key: uses.update([key])))
    graph(example_image(graph, 1 if graph.options.single else 2))
    for hook in hooks:
        hook.remove()
    # a router whose logits nobody reads is not run, and not in the file
    return {
        key: Promise(name, uses[key], values.nbytes, values)
        for key, (name, values) in held.items()
        if uses[key]
    }


def _owned(graph: StaticMoRViT) -> set[str]:
    """Content keys of everything the static module holds, its position constants among them."""
    return {_key(as_numpy(tensor)) for tensor in graph.state_dict().values()}


def _weight_uses(model: onnx.ModelProto, integers: Integers) -> dict[str, int]:
    """Initializer -> products that read it as a factor, widened first where it is int8."""
    weights = [init.name for init in model.graph.initializer if len(init.dims) == 2]
    factors = Counter(
        integers.factor.get(name, name)
        for node in model.graph.node
        if node.op_type in PRODUCTS
        for name in node.input[:2]
    )
    return {name: factors[name] for name in weights if factors[name]}


def _operator_violations(nodes: list[onnx.NodeProto], manifest: Manifest) -> list[str]:
    allowed = SCATTERS if manifest.form == "gather_scatter" else ()  # the baseline is named for it
    plan, choices = manifest.plan, [node.name for node in nodes if node.op_type == "If"]
    expected = 0
    if manifest.dispatch == "graph":  # one for each bucket but `full`, and one for who needs `full` after all
        expected = len(plan.buckets)
    wrong = [] if len(choices) == expected else [f"the graph has the Ifs {choices}, expected {expected}"]
    return wrong + [
        f"node {node.name!r} is a {node.op_type}: its work depends on data"
        for node in nodes
        if node.op_type in FORBIDDEN and node.op_type not in allowed
    ]


def _sharing_violations(
    model: onnx.ModelProto,
    uses: dict[str, int],
    promised: dict[str, Promise],
    owned: set[str],
    integers: Integers,
) -> list[str]:
    found: dict[str, list[str]] = {key: [] for key in promised}
    violations = []
    for init in model.graph.initializer:
        key = integers.keys.get(init.name) or _key(numpy_helper.to_array(init))
        if key in promised:
            found[key].append(init.name)
        elif init.name in integers.parameters:
            continue
        elif key not in owned and math.prod(init.dims) >= HELD_ELEMENTS:
            readers = [node.name for node in model.graph.node if init.name in node.input]
            violations.append(
                f"initializer {init.name!r} {list(init.dims)} is no weight of the model; read by {readers}"
            )
    for key, promise in promised.items():
        names = found[key]
        actual = sum(uses.get(name, 0) for name in names)
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


def _probe_violations(
    model: onnx.ModelProto, manifest: Manifest, bucket: str, graph: StaticMoRViT
) -> list[str]:
    """Every value that `verify` can look at is listed: none may be left out of the comparison."""
    named = set(graph(example_image(graph, 1 if graph.options.single else 2))) - set(RESULTS)
    inside = {name for node in model.graph.node for name in node.output}
    differing = sorted((named & inside) ^ set(manifest.probes_of(bucket)))
    return [f"the manifest's probes and the graph's values differ in {differing}"] if differing else []


def _size_violations(facts: Facts, promised: dict[str, Promise], manifest: Manifest) -> list[str]:
    stored = sum(promise.stored_bytes(manifest.lowering) for promise in promised.values())
    limit = int(SIZE_FACTOR * stored + SIZE_SLACK * len(manifest.plan.buckets))
    if facts.file_bytes <= limit:
        return []
    return [f"the files take {facts.file_bytes:,} bytes, at most {limit:,} expected"]


def as_numpy(tensor: torch.Tensor) -> NDArray:
    """The tensor's values; NumPy itself has no bf16, the type that onnx reads it as does."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def _key(array: NDArray) -> str:
    """Shape and content."""
    return f"{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
