"""How often a Core AI program multiplies by each weight, its MACs, and how the weights are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.coreai.compress import router_names
from morvit_deploy.exporters.coreai.compressed import Stored, compression_violations
from morvit_deploy.exporters.coreai.form import CoreaiForm
from morvit_deploy.exporters.coreai.printed.macs import count_macs, products
from morvit_deploy.exporters.coreai.printed.program import Graph, Operation, ProgramText
from morvit_deploy.exporters.functions.macs import Macs, mac_violations
from morvit_deploy.exporters.functions.names import MAIN, STEM
from morvit_deploy.exporters.functions.weights import Promise, Weight, use_violations
from morvit_deploy.exporters.structure import Structure, block_applications
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.plan import Plan

LARGE = 4096  # elements: a factor of this size or more must be a weight of the model
# Bytes of an asset against those of its weights. An operation takes about 150 bytes; a table of shapes is shared.
STORED, PER_OPERATION = 1.02, 600


def weight_violations(
    program: ProgramText,
    manifest: Manifest,
    graphs: Mapping[str, StaticMoRViT],
    promises: Mapping[str, Promise],
    stored: Stored,
    structure: Structure,
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


def _bucket_violations(
    program: ProgramText,
    parts: list[Graph],
    bucket: str,
    graph: StaticMoRViT,
    promise: Promise,
    owners: Stored,
    plan: Plan,
    structure: Structure,
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


def _size_violations(structure: Structure, weights: Iterable[Weight]) -> list[str]:
    """The asset holds little more than the weights."""
    limit = int(STORED * structure.weight_bytes) + PER_OPERATION * structure.nodes
    if structure.file_bytes <= limit:
        return []
    return [f"the asset takes {structure.file_bytes:,} bytes, at most {limit:,} expected"]
