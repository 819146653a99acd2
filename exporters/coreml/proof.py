"""The structure proof of a Core ML package: what the saved file says of itself, against what the unroll promised."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.contract.names import MAIN, PACKAGE, STEM
from morvit_deploy.exporters.coreml.mil.constexpr import CONSTEXPR
from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
from morvit_deploy.exporters.coreml.mil.neural_engine import leaving
from morvit_deploy.exporters.coreml.mil.package import Function, Operation
from morvit_deploy.exporters.coreml.mil.program import Weights
from morvit_deploy.exporters.coreml.mil.structure import count_macs, violations
from morvit_deploy.exporters.coreml.mil.types import FLOATS
from morvit_deploy.exporters.coreml.mlpackage.classify import LABEL
from morvit_deploy.exporters.coreml.mlpackage.save import WEIGHTS
from morvit_deploy.exporters.coreml.sdk.tools import mil_name
from morvit_deploy.exporters.onnx.graphs.graphs import weight_name
from morvit_deploy.graph.style.stems import ConvStem
from morvit_deploy.graph.unroll import RESULTS, StaticMoRViT
from morvit_deploy.model.macs import last_step_is_cls_alone, schedule_macs, selection_macs
from morvit_deploy.model.plan import Plan

FACTORS = {
    "linear": ("weight",),
    "conv": ("weight",),
    "matmul": ("x", "y"),
}  # products and what may be a weight
BY_INDEX = (
    "topk",
    "argsort",
    "gather",
    "gather_along_axis",
    "gather_nd",
    "scatter",
    "scatter_along_axis",
    "scatter_nd",
)
OPSETS_BEHIND = 10  # iOS 17 brought the operation set CoreML7, iOS 18 CoreML8
HELD_ELEMENTS = 4096  # a constant of this size or more must be one of the model's own
# of a weight's energy: below it a compressed copy is told from every other weight; int4 leaves about 0.1
COMPRESSION_ERROR = 0.3
IN_MODEL = "the model itself"  # where a constant is that is not in the weight file
SIZE_FACTOR, SIZE_SLACK = 1.03, 200_000  # weight file against the bytes of the unique parameters


@dataclass
class Facts:
    """Read off the saved package."""

    nodes: int
    operators: dict[str, int]
    macs: dict[str, int]  # one image, for each bucket
    block_applications: dict[str, int]  # the same in every bucket
    weight_bytes: int
    file_bytes: int
    functions: dict[str, Any]  # operations of each, and those that leave the Neural Engine
    violations: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {"proved": not self.violations, **asdict(self)}


@dataclass(frozen=True)
class Weight:
    """A weight of the static module, and how often a bucket multiplies by it."""

    name: str
    values: NDArray[np.float32]
    uses: int


def prove(folder: Path, manifest: Manifest, graphs: dict[str, StaticMoRViT]) -> Facts:
    """Hold a package's functions against the static modules they were written from.

    Checked for each bucket, stem included: every weight is multiplied by as often as its block is applied; MACs equal
    the plan's. Checked for each function: its form is the manifest's; no operation whose work depends on data; every
    dimension known; no topk, gather and scatter where one-hot products were asked for. Of all: each weight is stored
    once, however many functions read it; thresholds and the dispatch table are the plan's; the weight file's size.
    """
    form = CoremlForm.of(manifest)
    package = MilPackage(folder / PACKAGE)
    written = {name: package.function(name) for name in package.functions}
    operations = [op for function in written.values() for op in computed(function)]
    facts = Facts(
        nodes=len(operations),
        operators=dict(Counter(op.type for op in operations).most_common()),
        macs={},
        block_applications={},
        weight_bytes=(folder / PACKAGE / WEIGHTS).stat().st_size,
        file_bytes=sum(file.bytes for file in manifest.files if Path(file.path).is_relative_to(PACKAGE)),
        functions={name: _told(function) for name, function in written.items()},
    )
    if tuple(written) != form.functions:
        facts.violations.append(f"the package has the functions {list(written)}, expected {form.functions}")
        return facts
    facts.violations += [problem for function in written.values() for problem in violations(function)]
    if facts.violations:
        return facts  # with a dimension that is not known nothing can be counted
    for function in written.values():
        facts.violations += _form_violations(function, manifest.precision, form)
        facts.violations += _index_violations(function, manifest)
    promised = {bucket: promised_uses(graph) for bucket, graph in graphs.items()}
    weights = {weight.name: weight for of_one in promised.values() for weight in of_one}
    known = _Owners(list(weights.values()), manifest)
    unpacked = Weights()
    held = {name: held_by(function, unpacked) for name, function in written.items()}
    for bucket, graph in graphs.items():
        names = [STEM, bucket] if manifest.plan.adaptive else [MAIN]
        where = f"bucket {bucket}: " if manifest.plan.adaptive else ""
        found = _product_violations(
            [(written[name], held[name]) for name in names], promised[bucket], known, facts
        )
        found += _prove_bucket([written[name] for name in names], bucket, graph, manifest, facts)
        facts.violations += [where + violation for violation in found]
    facts.violations += _storage_violations(written, held, list(weights.values()), known, manifest)
    facts.violations += _threshold_violations(written, manifest)
    facts.violations += _table_violations(written, manifest)
    return facts


def computed(function: Function) -> Iterator[Operation]:
    """What a function does: no constants, and none that are unpacked when it is loaded."""
    return (op for op in function.operations if op.type != "const" and op.type not in CONSTEXPR)


def _told(function: Function) -> dict[str, Any]:
    """For the report."""
    return {
        "operations": sum(1 for _ in computed(function)),
        "leave_neural_engine": [asdict(one) for one in leaving(function)],
    }


def promised_uses(graph: StaticMoRViT) -> list[Weight]:
    """Each weight with the number of its products, by running the static module; none that nobody reads."""
    uses: Counter[str] = Counter()
    hooks = []
    held = {
        name: module
        for name, module in graph.named_modules()
        if isinstance(module, ConvStem)
        or (isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.squeeze().ndim > 1)
    }
    for name, module in held.items():
        hooks.append(module.register_forward_hook(lambda *_, name=name: uses.update([name])))
    graph(example_image(graph, 1))
    for hook in hooks:
        hook.remove()
    return [
        Weight(weight_name(f"{name}.weight"), module.weight.numpy(), uses[name])
        for name, module in held.items()
        if uses[name]
    ]


def _product_violations(
    parts: list[tuple[Function, dict[str, Held]]], weights: list[Weight], known: _Owners, facts: Facts
) -> list[str]:
    """Each weight is multiplied by as often as promised, and nothing else of its size is; notes the applications."""
    violations = []
    uses: Counter[str] = Counter()
    for function, held in parts:
        for operation, name, values in factors(function, held):
            owner = known.owner(values)
            if owner is not None:
                uses[owner] += 1
            elif values.size >= HELD_ELEMENTS:
                violations.append(
                    f"{operation.type} {operation.name!r} multiplies by {name!r} {list(values.shape)}, which is no "
                    "weight of the model"
                )
    promised = {weight.name: weight.uses for weight in weights}
    violations += [
        f"weight {name!r} is applied {uses[name]} times, expected {promised.get(name, 0)}"
        for name in dict.fromkeys([*promised, *uses])
        if uses[name] != promised.get(name, 0)
    ]
    facts.block_applications = {
        name.removesuffix(".fc2.weight"): times
        for name, times in uses.items()
        if name.endswith(".fc2.weight")
    }
    return violations


def _prove_bucket(
    parts: list[Function], bucket: str, graph: StaticMoRViT, manifest: Manifest, facts: Facts
) -> list[str]:
    """Prove the functions that answer one bucket's images; notes its MACs in `facts`."""
    violations = []
    counted = [count_macs(function) for function in parts]
    found, selecting = sum(one.products for one in counted), sum(one.selection for one in counted)
    facts.macs[bucket] = found
    told = schedule_macs(graph.config, graph.capacity, routed=graph.routed)
    if found != told:
        violations.append(f"the graph does {found:,} MACs an image, the plan says {told:,}")
    promised = _promised_selection(graph, manifest.plan)
    if selecting != promised:
        violations.append(f"selecting tokens takes {selecting:,} MACs, expected {promised:,}")
    named = {mil_name(name) for name in graph(example_image(graph, 1)) if name not in RESULTS}
    inside = {name for function in parts for name in function.types}
    listed = {mil_name(name) for name in manifest.probes_of(bucket)}
    listed |= {mil_name(port.name) for port in manifest.carried} & named
    if differing := sorted((named & inside) ^ listed):
        violations.append(f"the manifest's probes and the graph's values differ in {differing}")
    return violations


@dataclass(frozen=True, eq=False)
class Held:
    """An array that a function holds, as its operations read it."""

    values: NDArray
    places: tuple[Any, ...]  # where its parts are stored: in the weight file, or in the model itself


def held_by(function: Function, unpacked: Weights) -> dict[str, Held]:
    """Name of a value -> the constant it is; what is compressed is unpacked, once for all functions."""
    held: dict[str, Held] = {}
    for operation in function.operations:
        if operation.type in CONSTEXPR:
            reads = {name: item for name, (item,) in operation.inputs.items()}
            parts = {
                n: function.constants[item] if isinstance(item, str) else item for n, item in reads.items()
            }
            places = tuple(part.stored for part in parts.values() if part.stored)
            held[operation.outputs[0].name] = Held(unpacked.unpack(operation, parts).value, places)
        elif operation.type == "const" and isinstance(operation.constant.value, np.ndarray):
            constant = operation.constant
            held[operation.outputs[0].name] = Held(constant.value, (constant.stored or IN_MODEL,))
    return held


def factors(function: Function, held: dict[str, Held]) -> Iterator[tuple[Operation, str, NDArray]]:
    """Each product with the constant that it multiplies by: the operation, the constant's name and its values."""
    for operation in function.operations:
        for parameter in FACTORS.get(operation.type, ()):
            (item,) = operation.inputs[parameter]
            if isinstance(item, str) and item in held:
                yield operation, item, held[item].values
            elif not isinstance(item, str) and isinstance(item.value, np.ndarray):
                yield operation, parameter, item.value


class _Owners:
    """Finds the weight of the model that a stored constant is, whichever way round it is stored."""

    def __init__(self, weights: list[Weight], manifest: Manifest) -> None:
        self._half = manifest.precision == "fp16"
        self._compressed = not CoremlForm.of(manifest).exact
        self._keys = {self._key(weight.values): weight.name for weight in weights}
        self._shapes: dict[tuple[int, ...], list[Weight]] = {}
        for weight in weights:
            self._shapes.setdefault(_shape(weight.values), []).append(weight)
        # identity -> the array, so that no other one gets its identity, and what was found
        self._found: dict[int, tuple[NDArray, str | None]] = {}

    def owner(self, values: NDArray) -> str | None:
        """Name of the weight; None where it is none of them."""
        if id(values) not in self._found:
            owner = self._keys.get(self._key(values))
            self._found[id(values)] = values, owner or (self._nearest(values) if self._compressed else None)
        return self._found[id(values)][1]

    def _key(self, values: NDArray) -> str:
        return content_key(values.astype(np.float16) if self._half else values)

    def _nearest(self, values: NDArray) -> str | None:
        """The weight that a compressed copy is of: the one that it differs least from, and little."""
        errors: dict[str, float] = {}
        for weight in self._shapes.get(_shape(values), []):
            wanted = np.squeeze(weight.values).astype(np.float64)
            ways = (np.squeeze(values), np.squeeze(values).T)
            fitting = [way.astype(np.float64) for way in ways if way.shape == wanted.shape]
            energy = max(np.square(wanted).sum(), np.finfo(np.float64).tiny)
            errors[weight.name] = (
                min((np.square(way - wanted).sum() for way in fitting), default=np.inf) / energy
            )
        best = min(errors, key=errors.__getitem__, default=None)
        return best if best is not None and errors[best] <= COMPRESSION_ERROR**2 else None


def _shape(values: NDArray) -> tuple[int, ...]:
    return tuple(sorted(np.squeeze(values).shape))


def content_key(values: NDArray) -> str:
    """The same for a matrix and its transpose, and for axes of one more."""
    squeezed = np.squeeze(values)
    digests = [
        hashlib.sha256(np.ascontiguousarray(way).tobytes()).hexdigest() for way in (squeezed, squeezed.T)
    ]
    return f"{_shape(values)} {min(digests)}"


def _promised_selection(graph: StaticMoRViT, plan: Plan) -> int:
    """MACs that one-hot selection adds; none where tokens are gathered."""
    if not graph.options.style.one_hot:
        return 0
    with_depth = graph.options.with_depth
    return selection_macs(graph.config, graph.capacity, plan.thresholds, with_depth, sorts=graph.sorts)


def _form_violations(function: Function, precision: str, form: CoremlForm) -> list[str]:
    """Operation set, numbers, compression and classes are those that the manifest tells of."""
    kinds = {value.type.dtype for op in computed(function) for value in op.outputs}
    found = {
        f"the operation set {function.opset}": function.opset == f"CoreML{form.ios - OPSETS_BEHIND}",
        f"numbers in {', '.join(sorted(kinds.intersection(FLOATS)))}": ("fp16" in kinds)
        == (precision == "fp16"),
        "compressed weights": form.weights != "float"
        or all(op.type not in CONSTEXPR for op in function.operations),
        f"the outputs {', '.join(function.outputs)}": (LABEL in function.outputs) == form.classifier,
    }
    told = (
        f"{precision}, weights {form.weights}, iOS {form.ios}, {'a' if form.classifier else 'no'} classifier"
    )
    return [
        f"function {function.name!r} has {what}, which does not go with the manifest: {told}"
        for what, fits in found.items()
        if not fits
    ]


def _index_violations(function: Function, manifest: Manifest) -> list[str]:
    """With `onehot` nothing is taken by index."""
    if CoremlForm.of(manifest).select != "onehot":
        return []
    return [
        f"function {function.name!r}: {op.type} {op.name!r}, where tokens are selected by products"
        for op in function.operations
        if op.type in BY_INDEX
    ]


def _storage_violations(
    written: dict[str, Function],
    held: dict[str, dict[str, Held]],
    promised: list[Weight],
    known: _Owners,
    manifest: Manifest,
) -> list[str]:
    """Each weight has one place in the weight file."""
    places: dict[str, set[Any]] = {}
    for array in (array for of_one in held.values() for array in of_one.values()):
        if array.values.ndim > 1 and (owner := known.owner(array.values)):
            places.setdefault(owner, set()).add(array.places)
    violations = [
        f"weight {name!r} is stored {len(where)} times, expected once: {sorted(map(str, where))}"
        for name, where in places.items()
        if len(where) > 1
    ]
    constants = (constant for function in written.values() for constant in function.constants.values())
    total = sum({c.stored: c.value.nbytes for c in constants if c.stored is not None}.values())
    width = 2 if manifest.precision == "fp16" else 4
    limit = int(SIZE_FACTOR * width * sum(weight.values.size for weight in promised)) + SIZE_SLACK
    if total > limit:
        violations.append(f"the weight file holds {total:,} bytes, at most {limit:,} expected")
    return violations


def _threshold_violations(written: dict[str, Function], manifest: Manifest) -> list[str]:
    """Router logits are compared with the plan's thresholds, as the package rounds them, and with nothing else."""
    kind = np.float16 if manifest.precision == "fp16" else np.float32
    thresholds = manifest.plan.thresholds
    if thresholds is None:
        return []
    told = {float(kind(t)) for t in thresholds if t is not None}
    reached = thresholds[:-1] if last_step_is_cls_alone(manifest.config) else thresholds
    needed = {float(kind(t)) for t in reached if t is not None}
    found = {
        float(value)
        for function in written.values()
        for op in function.operations
        if op.type == "greater_equal"
        and isinstance(value := function.constant(op, "y"), np.ndarray | np.generic)
        and value.size == 1
        and value.dtype.kind == "f"
    }
    if needed <= found <= told:
        return []
    return [f"router logits are compared with {sorted(found)}, the plan's thresholds are {sorted(told)}"]


def _table_violations(written: dict[str, Function], manifest: Manifest) -> list[str]:
    """The stem chooses by the plan's own table: upper bounds, or capacities."""
    plan = manifest.plan
    if not plan.adaptive:
        return []
    table = np.array([bucket.capacity for bucket in plan.buckets])
    if plan.mode == "threshold":
        table = np.array([bucket.upto for bucket in plan.buckets[:-1]])
    stem = written[STEM]
    found = [
        value
        for op in stem.operations
        if op.type == "greater" and isinstance(value := stem.constant(op, "y"), np.ndarray)
    ]
    if any(np.array_equal(value.reshape(-1), table.reshape(-1)) for value in found):
        return []
    return [f"the stem chooses by {[value.tolist() for value in found]}, the plan says {table.tolist()}"]
