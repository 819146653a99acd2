"""The structure proof of a Core AI asset: checks the saved program against the static graphs it was written from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from morvit_deploy.bundle.manifest import Manifest, Port
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.coreai.again import converted_again, differences
from morvit_deploy.exporters.coreai.compressed import Stored, as_stored
from morvit_deploy.exporters.coreai.convert import PIXEL_SCALE
from morvit_deploy.exporters.coreai.form import CoreaiForm
from morvit_deploy.exporters.coreai.names import ASSET
from morvit_deploy.exporters.coreai.printed.asset import PROGRAM
from morvit_deploy.exporters.coreai.printed.macs import BY_INDEX, computed, static_violations
from morvit_deploy.exporters.coreai.printed.program import (
    CONSTANT,
    NUMPY,
    OUTPUT,
    Graph,
    ProgramText,
    read_program,
)
from morvit_deploy.exporters.coreai.products import weight_violations
from morvit_deploy.exporters.coreai.thresholds import kind_of, plan_violations
from morvit_deploy.exporters.functions.names import plain_name
from morvit_deploy.exporters.functions.weights import promise_of
from morvit_deploy.exporters.kit.proof import kit_violations
from morvit_deploy.exporters.structure import Structure
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.verifying.replay import exact_copies

NORM = ("broadcasting_add", "broadcasting_mul", "broadcasting_sub", "reduce_mean", "rsqrt")
SCALE = {
    "uint8": 1 / PIXEL_SCALE,
    "float": 1.0,
}  # what an image is divided by before the static graph takes it


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
    structure.violations += weight_violations(program, manifest, graphs, promises, stored, structure)
    structure.violations += plan_violations(program, manifest)
    if not structure.violations:
        exact = as_stored(exact_copies(graphs, kind_of(manifest)), program, stored)
        structure.violations += kit_violations(folder, manifest, exact, SCALE[manifest.input])
    again = None if just_written or structure.violations else converted_again(graphs, manifest)
    if again is not None:
        differing = differences(program, form, again, stored)
        structure.same_as_converted_again = not differing
        structure.violations += differing
    return structure


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
