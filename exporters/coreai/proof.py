"""The structure proof of a Core AI asset: checks the saved program against the static graphs it was written from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.bundle.manifest import Manifest, Port
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.coreai.compress import router_names
from morvit_deploy.exporters.coreai.compressed import Stored, as_stored, compression_violations
from morvit_deploy.exporters.coreai.convert import PIXEL_SCALE, Program, converted
from morvit_deploy.exporters.coreai.form import CoreaiForm
from morvit_deploy.exporters.coreai.names import ASSET, PROGRAM, TESTED
from morvit_deploy.exporters.coreai.printed.macs import (
    BY_INDEX,
    computed,
    count_macs,
    products,
    static_violations,
)
from morvit_deploy.exporters.coreai.probes import Digests, find_values, program_violations
from morvit_deploy.exporters.coreai.program import (
    CONSTANT,
    NUMPY,
    OUTPUT,
    Graph,
    Operation,
    ProgramText,
    read_program,
)
from morvit_deploy.exporters.functions.macs import Macs, mac_violations
from morvit_deploy.exporters.functions.names import MAIN, STEM, plain_name
from morvit_deploy.exporters.functions.tracing import functions
from morvit_deploy.exporters.functions.weights import Promise, Weight, promise_of, use_violations
from morvit_deploy.exporters.kit.proof import kit_violations
from morvit_deploy.exporters.structure import (
    Structure,
    block_applications,
    table_violations,
    threshold_violations,
)
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.machine.this import versions
from morvit_deploy.model.plan import Plan
from morvit_deploy.verifying.replay import exact_copies

NORM = ("broadcasting_add", "broadcasting_mul", "broadcasting_sub", "reduce_mean", "rsqrt")
LARGE = 4096  # elements: a factor of this size or more must be a weight of the model
# Bytes of an asset against those of its weights. An operation takes about 150 bytes; a table of shapes is shared.
STORED, PER_OPERATION = 1.02, 600
SCALE = {
    "uint8": 1 / PIXEL_SCALE,
    "float": 1.0,
}  # what an image is divided by before the static graph takes it
GREATER = ("greater", "broadcasting_greater")


@dataclass
class AssetStructure(Structure):
    """The structure of an asset and of its functions."""

    operations_by_function: dict[str, int] = field(default_factory=dict)
    program_sha256: str = ""
    same_as_converted_again: bool | None = None  # None: not compared


def prove(
    folder: Path, manifest: Manifest, graphs: Mapping[str, StaticMoRViT], *, just_written: bool = False
) -> AssetStructure:
    """Check an asset's functions against the static graphs that they were written from.

    For each bucket, stem included: every weight is multiplied by as often as its block is applied, and MACs are the
    plan's. For each function: its inputs and outputs are the manifest's; numbers have the manifest's precision; no
    operation's work depends on data; every dimension is known; with one-hot selection there is no top-k, sort or
    gather. For the asset: each weight is stored once, however many functions read it, and in the manifest's way: a
    compressed one is the model's within half a step, and no router's is compressed; thresholds and dispatch table
    are the plan's; the file is little larger than the weights. Beside it: the description and MoRViTKit's data are
    the model's. Where the libraries are those that wrote the asset: every operation is that of a new conversion,
    unless the asset was `just_written`.
    """
    form = CoreaiForm.of(manifest)
    program = read_program(folder / ASSET)
    written = {graph.name: graph for graph in program.functions}
    structure = _read_off(folder / ASSET, program)
    if tuple(written) != form.functions:
        structure.violations.append(
            f"the asset has the functions {list(written)}, expected {list(form.functions)}"
        )
        return structure
    every = program.graphs.values()
    structure.violations += [problem for graph in every for problem in static_violations(graph)]
    if structure.violations:
        return structure  # nothing can be counted where a dimension is not known
    for graph in every:
        structure.violations += [
            *_precision_violations(graph, manifest.precision),
            *_index_violations(graph, form),
        ]
    structure.violations += _port_violations(written, manifest)
    promises = {bucket: promise_of(graph, example_image(graph, 1)) for bucket, graph in graphs.items()}
    stored = Stored(
        (weight for promise in promises.values() for weight in promise.weights),
        half=manifest.precision == "fp16",
    )
    structure.violations += _weight_violations(program, manifest, graphs, promises, stored, structure)
    structure.violations += _plan_violations(program, manifest)
    if not structure.violations:
        exact = as_stored(exact_copies(graphs, _kind(manifest)), program, stored)
        structure.violations += kit_violations(folder, manifest, exact, SCALE[manifest.input])
    again = None if just_written or structure.violations else _converted_again(graphs, manifest)
    if again is not None:
        differing = _differences(program, form, again, stored)
        structure.same_as_converted_again = not differing
        structure.violations += differing
    return structure


def _weight_violations(
    program: ProgramText,
    manifest: Manifest,
    graphs: Mapping[str, StaticMoRViT],
    promises: Mapping[str, Promise],
    stored: Stored,
    structure: AssetStructure,
) -> list[str]:
    """How often each bucket multiplies by each weight, its MACs, and how the weights are stored."""
    plan = manifest.plan
    violations: list[str] = []
    for bucket, graph in graphs.items():
        of_bucket = [program.graphs[name] for name in ([STEM, bucket] if plan.adaptive else [MAIN])]
        found = _bucket_violations(
            program, of_bucket, bucket, graph, promises[bucket], stored, plan, structure
        )
        where = f"bucket {bucket}: " if plan.adaptive else ""
        violations += [where + violation for violation in found]
    factors = [constant for graph in program.graphs.values() for _, constant in _factors(graph)]
    routers, how = router_names(next(iter(graphs.values()))), CoreaiForm.of(manifest).weights
    return [
        *violations,
        *compression_violations(program, factors, stored, routers, how),
        *_storage_violations(program, stored),
        *_size_violations(structure, stored.weights),
    ]


def _plan_violations(program: ProgramText, manifest: Manifest) -> list[str]:
    """Thresholds and dispatch table are the plan's."""
    plan = manifest.plan
    violations: list[str] = []
    if plan.thresholds is not None:
        violations += threshold_violations(_thresholds(program), manifest, _kind(manifest))
    if plan.adaptive:
        tables = [program.array(constant) for constant in _compared([program.graphs[STEM]], read=1)]
        violations += table_violations(tables, plan, "the stem")
    return violations


def _kind(manifest: Manifest) -> type[np.floating[Any]]:
    """The type of the program's floating-point constants."""
    return np.float16 if manifest.precision == "fp16" else np.float32


def _differences(program: ProgramText, form: CoreaiForm, again: Program, stored: Stored) -> list[str]:
    """What differs from a new conversion in the program, and in where the manifest says that values inside are.

    Of a weight in an asset of compressed ones its name is compared: its values are checked elsewhere.
    """
    both = program, ProgramText(again.text)
    ours, theirs = (Digests(one) if form.exact else Digests(one, partial(stored.named, one)) for one in both)
    if differing := program_violations(ours, theirs):
        return differing
    inside = find_values(ours, theirs, again.probes)
    wrong = sorted(name for name in inside | form.inside if inside.get(name) != form.inside.get(name))
    return [f"{name}: the manifest's places of values inside are others than the program's" for name in wrong]


def _converted_again(graphs: Mapping[str, StaticMoRViT], manifest: Manifest) -> Program | None:
    """What coreai-torch writes of the static graphs; None where other versions wrote the asset."""
    names = tuple(TESTED)
    if versions(names) != {name: manifest.versions.get(name) for name in names}:
        return None
    parts = functions(dict(graphs), manifest.plan)
    return converted(parts, manifest.precision, pixels=manifest.input == "uint8", probing=True)


def _read_off(asset: Path, program: ProgramText) -> AssetStructure:
    """Counts that need no knowledge of the plan."""
    operations = [op for graph in program.graphs.values() for op in computed(graph)]
    every = [op for graph in program.graphs.values() for op in graph.operations]
    parts = [part for op in every for part in op.parts]
    floats = [op for op in every if op.kind == CONSTANT and op.makes[0].dtype.startswith("f")]
    held = [*(op for op in floats if op not in parts), *(part for part in parts if not program.is_one(part))]
    places = {program.place(op): program.stored_bytes(op) for op in held}
    return AssetStructure(
        nodes=len(operations),
        operators=dict(Counter(op.kind for op in operations).most_common()),
        macs={},
        weight_bytes=sum(places.values()),
        file_bytes=sum(path.stat().st_size for path in asset.rglob("*") if path.is_file()),
        operations_by_function={graph.name: sum(1 for _ in computed(graph)) for graph in program.functions},
        program_sha256=hashlib.sha256((asset / PROGRAM).read_bytes()).hexdigest(),
    )


def _precision_violations(graph: Graph, precision: str) -> list[str]:
    """Numbers have one floating-point type, but for pixels and logits at the ends, and inside a layer norm.

    coreai-torch writes a norm as a part of its own, which casts to float32 and back.
    """
    own, other = ("f16", "f32") if precision == "fp16" else ("f32", "f16")
    norm = graph.private and graph.name.startswith("layer_norm")
    allowed = {"cast", CONSTANT, OUTPUT, *(NORM if norm and other == "f32" else ())}
    found = {
        op.kind
        for op in graph.operations
        for kind in op.makes
        if kind.dtype == other and op.kind not in allowed
    }
    return [f"{graph.name}: {kind} computes in {other}, expected {own}" for kind in sorted(found)]


def _index_violations(graph: Graph, form: CoreaiForm) -> list[str]:
    """With `onehot` no operation takes tokens by index."""
    if form.select != "onehot":
        return []
    kinds = sorted({op.kind for op in graph.operations if op.kind in BY_INDEX})
    return [f"{graph.name}: {kind}, where tokens are selected by products" for kind in kinds]


def _port_violations(written: Mapping[str, Graph], manifest: Manifest) -> list[str]:
    """Inputs and outputs of the functions are the manifest's, in name, type and shape."""
    ports = {plain_name(p.name): p for p in (*manifest.inputs, *manifest.outputs, *manifest.carried)}
    ports |= {"bucket": Port(name="bucket", dtype="int32", shape=(1,))} if manifest.plan.adaptive else {}
    problems = []
    for graph in written.values():
        for name, kind in (*graph.inputs.items(), *graph.outputs.items()):
            found = (NUMPY.get(kind.dtype, kind.dtype), kind.sizes)
            expected = (ports[name].dtype, tuple(ports[name].shape)) if name in ports else None
            if found != expected:
                problems.append(f"{graph.name}: {name} is {found}, the manifest says {expected}")
    named = {name for graph in written.values() for name in (*graph.inputs, *graph.outputs)}
    return problems + [
        f"no function has {name}, which the manifest lists" for name in ports if name not in named
    ]


def _bucket_violations(
    program: ProgramText,
    parts: list[Graph],
    bucket: str,
    graph: StaticMoRViT,
    promise: Promise,
    owners: Stored,
    plan: Plan,
    structure: AssetStructure,
) -> list[str]:
    """Check the functions that run for one bucket; records its MACs and block applications in `structure`."""
    uses, found = _count_uses(program, parts, owners)
    structure.block_applications = block_applications(uses)
    macs = sum((count_macs(part) for part in parts), Macs())
    structure.macs[bucket] = macs.products
    return [*found, *use_violations(uses, promise.weights), *mac_violations(macs, graph, plan)]


def _count_uses(
    program: ProgramText, parts: Iterable[Graph], owners: Stored
) -> tuple[Counter[str], list[str]]:
    """How often functions multiply by each weight; and violations: large factors that are no weight."""
    uses: Counter[str] = Counter()
    violations = []
    for graph in parts:
        for operation, constant in _factors(graph):
            values = program.array(constant)
            owner = owners.owner(constant, values)
            if owner is not None:
                uses[owner] += 1
            elif values.size >= LARGE:
                violations.append(
                    f"{operation.kind} %{operation.name} multiplies by {list(values.shape)}, which is not a weight "
                    "of the model"
                )
    return uses, violations


def _factors(graph: Graph) -> Iterable[tuple[Operation, Operation]]:
    """Each product by a constant, and the constant."""
    for operation in products(graph):
        for name in operation.reads[:2]:
            if (constant := graph.constant(name)) is not None:
                yield operation, constant


def _storage_violations(program: ProgramText, owners: Stored) -> list[str]:
    """Weights that are stored more than once."""
    places: dict[str, set[str]] = {}
    for graph in program.graphs.values():
        for _, constant in _factors(graph):
            if owner := owners.owner(constant, program.array(constant)):
                places.setdefault(owner, set()).add(program.place(constant))
    return [
        f"weight {name!r} is stored {len(where)} times, expected once"
        for name, where in places.items()
        if len(where) > 1
    ]


def _size_violations(structure: AssetStructure, weights: Iterable[Weight]) -> list[str]:
    """The asset holds little more than the weights."""
    limit = int(STORED * structure.weight_bytes) + PER_OPERATION * structure.nodes
    if structure.file_bytes <= limit:
        return []
    return [f"the asset takes {structure.file_bytes:,} bytes, at most {limit:,} expected"]


def _thresholds(program: ProgramText) -> set[float]:
    """The numbers that router logits are compared with: `z >= t` is written as `not (t > z)`."""
    constants = _compared(program.graphs.values(), read=0)
    values = (program.array(constant) for constant in constants if constant.makes[0].dtype.startswith("f"))
    return {float(value.reshape(-1)[0]) for value in values if value.size == 1}


def _compared(graphs: Iterable[Graph], read: int) -> list[Operation]:
    """The constants that comparisons read as their first or second operand."""
    found = (
        graph.constant(op.reads[read]) for graph in graphs for op in graph.operations if op.kind in GREATER
    )
    return [constant for constant in found if constant is not None]
