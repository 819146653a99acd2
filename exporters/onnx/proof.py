"""The structure proof: checks written ONNX files against the static modules that they were written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import StructureError
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.graphs.macs import at_batch, count_macs
from morvit_deploy.exporters.onnx.graphs.names import graph_files
from morvit_deploy.exporters.onnx.graphs.plain import plain_graph, read_graph
from morvit_deploy.exporters.onnx.low.blocks import widened
from morvit_deploy.exporters.onnx.proof_dispatch import dispatch_violations
from morvit_deploy.exporters.onnx.proof_precision import (
    Integers,
    Promise,
    Storing,
    block_violations,
    half_violations,
    integer_violations,
    read_integers,
    with_blocks,
)
from morvit_deploy.exporters.onnx.proof_storage import (
    places,
    size_violations,
    storage_violations,
    stored_bytes,
)
from morvit_deploy.exporters.onnx.proof_structure import (
    compared_numbers,
    dispatch_table,
    limit_violations,
    mac_violations,
    operator_violations,
    port_violations,
    probe_violations,
    runtime_violations,
    shapes_of,
)
from morvit_deploy.exporters.onnx.proof_values import value_violations
from morvit_deploy.exporters.onnx.proof_weights import (
    Keys,
    bytes_beside_weights,
    integer_keys,
    promised_uses,
    sharing_violations,
    stored_keys,
    weight_uses,
)
from morvit_deploy.exporters.structure import (
    Structure,
    block_applications,
    table_violations,
    threshold_violations,
)
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.verifying.replay import exact_copies


@dataclass(frozen=True)
class BucketProof:
    """The proof of one bucket's plain graph."""

    macs: int  # one image
    block_applications: dict[str, int]
    promised: dict[str, Promise]  # content key of each weight of the static module
    integers: dict[str, str]  # content key of each int8 weight to the weight's name
    compared: set[float]  # with router logits
    violations: list[str]


def prove(folder: Path, manifest: Manifest, graphs: Mapping[str, StaticMoRViT]) -> Structure:
    """Read a bundle's files and check them against the static modules that they were written from.

    Checked for each bucket: every weight is read as often as its block is applied; no operator whose work
    depends on data; no dynamic dimension but the batch; MACs equal the plan's. Checked for all: each weight is stored
    once, however many buckets read it; the only Ifs are those that choose the bucket; the target's limits; file size.

    Raises StructureError for files that are not valid ONNX, or that take other inputs than the manifest says.
    """
    files = graph_files(manifest.dispatch, manifest.plan)
    parts = {part: read_graph(folder / name) for part, name in files.items()}
    _check_files(folder, files, parts, manifest)
    models = list(parts.values())
    nodes = [node for model in models for graph in every_graph(model.graph) for node in graph.node]
    exact = exact_copies(graphs, np.float32)
    storing, keys = Storing.of(manifest, models), Keys()
    buckets = {
        name: prove_bucket(folder, manifest, name, graph, exact[name], storing, keys)
        for name, graph in graphs.items()
    }
    file_bytes = sum(file.bytes for file in manifest.files)
    limits = find_target(manifest.target).limits
    return Structure(
        nodes=len(nodes),
        operators=dict(Counter(node.op_type for node in nodes).most_common()),
        macs={name: bucket.macs for name, bucket in buckets.items()},
        block_applications=[*buckets.values()][-1].block_applications,
        weight_bytes=stored_bytes(models),
        file_bytes=file_bytes,
        violations=[
            *operator_violations(nodes, manifest),
            *runtime_violations(models, manifest),
            *(found for model in models for found in limit_violations(model, folder, limits)),
            *(found for model in models for found in port_violations(model, manifest.batch == "dynamic")),
            *_table_violations(parts.get("stem") or parts["model"], manifest, folder),
            *_bucket_violations(buckets, manifest),
            *_dispatch_violations(folder, manifest, exact, buckets),
            *_shared_violations(folder, models, buckets, manifest, storing),
            *size_violations(
                file_bytes, _promised(buckets).values(), manifest, storing, bytes_beside_weights(graphs)
            ),
        ],
    )


def _check_files(
    folder: Path, files: Mapping[str, str], parts: Mapping[str, onnx.ModelProto], manifest: Manifest
) -> None:
    """Raise StructureError for what the proofs take for granted: each value is computed before it is read."""
    for name in files.values():
        try:
            onnx.checker.check_model(folder / name)
        except Exception as error:  # the checker and protobuf raise types of their own
            problem = str(error).strip().splitlines()[0]
            raise StructureError(
                f"{folder / name} is not valid ONNX: {problem}; export the bundle again"
            ) from None
    first = parts.get("stem") or parts["model"]
    found, wanted = [value.name for value in first.graph.input], [port.name for port in manifest.inputs]
    if found != wanted:
        raise StructureError(
            f"the graph in {folder} takes the inputs {found}, expected {wanted}; export the bundle again"
        )


def prove_bucket(
    folder: Path,
    manifest: Manifest,
    bucket: str,
    graph: StaticMoRViT,
    exact: StaticMoRViT,
    storing: Storing,
    keys: Keys,
) -> BucketProof:
    """Prove the plain graph of one bucket against its static module; `exact` is the same in float64."""
    wide = widened(plain_graph(folder, manifest, bucket, weights=True))
    model = wide.model
    batch = 1 if manifest.batch == "dynamic" else manifest.batch
    fixed = at_batch(model, batch)
    promised, named = promised_uses(graph, keys)
    owned = {keys.of(tensor) for tensor in graph.state_dict().values()}
    read = read_integers(model, promised, storing.lowering.largest_weight)
    read = with_blocks(read, wide, promised)
    uses, stored = weight_uses(model, read), stored_keys(model, read)
    shapes, dynamic = shapes_of(fixed)
    macs = 0 if dynamic else count_macs(fixed, shapes) // batch
    violations = [
        *wide.problems,
        *sharing_violations(model, uses, promised, owned, read, stored, copied=storing.fast_tail),
        *dynamic,
        *probe_violations(model, manifest, bucket, named),
        *_precision_violations(model, fixed, read, promised, storing),
        *([] if dynamic else mac_violations(macs, graph, manifest)),
    ]
    if not violations and manifest.form == "unrolled":
        violations = value_violations(model, exact, stored, promised, manifest, bucket)
    return BucketProof(
        macs=macs,
        block_applications=block_applications(uses),
        promised=promised,
        integers=integer_keys(model, read, promised),
        compared=compared_numbers(model),
        violations=violations,
    )


def _precision_violations(
    model: onnx.ModelProto,
    fixed: onnx.ModelProto,
    read: Integers,
    promised: Mapping[str, Promise],
    storing: Storing,
) -> list[str]:
    """Integers and fp16 values are where the precision allows them; `fixed` is the model at one batch size."""
    violations = []
    if storing.in_blocks:
        violations += block_violations(model, read, promised, storing)
    elif read.blocks:
        violations.append(f"{storing.precision} with weights in blocks: {sorted(read.blocks)}")
    integers = sorted({*read.keys, *read.unknown} - {*read.blocks})
    if storing.precision == "int8":
        violations += integer_violations(model, read, promised, storing.lowering)
    elif integers:
        violations.append(f"{storing.precision} with int8 weights: {integers}")
    if storing.precision in ("fp16", "bf16"):
        violations += half_violations(fixed)
    return violations


def _table_violations(stem: onnx.ModelProto, manifest: Manifest, folder: Path) -> list[str]:
    if not manifest.plan.adaptive:
        return []
    return table_violations(dispatch_table(stem, folder), manifest.plan, "the graph")


def _dispatch_violations(
    folder: Path, manifest: Manifest, exact: Mapping[str, StaticMoRViT], buckets: Mapping[str, BucketProof]
) -> list[str]:
    """Of files whose buckets are proved; one that is not may not fit together."""
    if not manifest.plan.adaptive or any(bucket.violations for bucket in buckets.values()):
        return []
    return dispatch_violations(folder, manifest, exact)


def _bucket_violations(buckets: Mapping[str, BucketProof], manifest: Manifest) -> list[str]:
    return [
        f"bucket {name}: {violation}" if manifest.plan.adaptive else violation
        for name, bucket in buckets.items()
        for violation in bucket.violations
    ]


def _shared_violations(
    folder: Path,
    models: list[onnx.ModelProto],
    buckets: Mapping[str, BucketProof],
    manifest: Manifest,
    storing: Storing,
) -> list[str]:
    """Checks over all buckets: every threshold is applied, every weight is stored once."""
    compared = {number for bucket in buckets.values() for number in bucket.compared}
    integers = {key: name for bucket in buckets.values() for key, name in bucket.integers.items()}
    stored = places(folder, models)
    return [
        *threshold_violations(compared, manifest),
        *storage_violations(stored, _promised(buckets), integers, storing),
    ]


def _promised(buckets: Mapping[str, BucketProof]) -> dict[str, Promise]:
    return {key: promise for bucket in buckets.values() for key, promise in bucket.promised.items()}
