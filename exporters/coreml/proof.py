"""The structure proof of a Core ML package: checks the saved file against the static graphs it was written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.contract.names import PACKAGE
from morvit_deploy.exporters.coreml.mil.constexpr import Weights
from morvit_deploy.exporters.coreml.mil.function import Function
from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
from morvit_deploy.exporters.coreml.mil.neural_engine import leaving
from morvit_deploy.exporters.coreml.mil.structure import count_macs, violations
from morvit_deploy.exporters.coreml.mlpackage.save import WEIGHTS
from morvit_deploy.exporters.coreml.proving.copies import copy_violations
from morvit_deploy.exporters.coreml.proving.form import (
    computed,
    form_violations,
    head_violations,
    index_violations,
)
from morvit_deploy.exporters.coreml.proving.plan import (
    compared,
    compared_numbers,
    probe_violations,
)
from morvit_deploy.exporters.coreml.proving.products import (
    Part,
    count_uses,
    part_of,
    size_violations,
    storage_violations,
)
from morvit_deploy.exporters.coreml.proving.values import (
    as_stored,
    choice_violations,
    value_violations,
)
from morvit_deploy.exporters.functions.macs import Macs, mac_violations
from morvit_deploy.exporters.functions.names import MAIN, STEM
from morvit_deploy.exporters.functions.weights import Owners, Promise, promise_of, use_violations
from morvit_deploy.exporters.structure import (
    Structure,
    block_applications,
    table_violations,
    threshold_violations,
)
from morvit_deploy.graph.unroll import StaticMoRViT


@dataclass
class PackageStructure(Structure):
    """The structure of a package and of its functions."""

    # number of operations, and those that leave the Neural Engine
    functions: dict[str, dict[str, Any]] = field(default_factory=dict)


def prove(folder: Path, manifest: Manifest, graphs: Mapping[str, StaticMoRViT]) -> PackageStructure:
    """Check a package's functions against the static graphs that they were written from.

    For each bucket, stem included: every weight is multiplied by as often as its block is applied; MACs are the
    plan's; probes are the manifest's. For each function: its options are the manifest's; no operation's work depends
    on data; every dimension is known; with one-hot selection there is no topk, gather or scatter. For the package:
    each weight is stored once, however many functions read it; thresholds and dispatch table are the plan's; the
    weight file is no larger than the parameters.
    """
    form, plan = CoremlForm.of(manifest), manifest.plan
    package = MilPackage(folder / PACKAGE)
    written = {name: package.function(name) for name in package.functions}
    structure = _read_off(folder, manifest, written)
    if tuple(written) != form.functions:
        structure.violations.append(
            f"the package has the functions {list(written)}, expected {form.functions}"
        )
        return structure
    structure.violations += [problem for function in written.values() for problem in violations(function)]
    if structure.violations:
        return structure  # nothing can be counted where a dimension is not known
    for function in written.values():
        structure.violations += form_violations(function, manifest.precision, form)
        structure.violations += index_violations(function, form)
        structure.violations += head_violations(function, manifest.config.head_activation)
    promises = {bucket: promise_of(graph, example_image(graph, 1)) for bucket, graph in graphs.items()}
    weights = {weight.name: weight for promise in promises.values() for weight in promise.weights}.values()
    owners = Owners(weights, half=manifest.precision == "fp16", compressed=form.weights != "float")
    unpacked = Weights()
    parts = {name: part_of(function, unpacked) for name, function in written.items()}
    for bucket, graph in graphs.items():
        of_bucket = [parts[name] for name in ([STEM, bucket] if plan.adaptive else [MAIN])]
        found = _bucket_violations(of_bucket, bucket, graph, promises[bucket], owners, manifest, structure)
        where = f"bucket {bucket}: " if plan.adaptive else ""
        structure.violations += [where + violation for violation in found]
    structure.violations += _replayed(folder, package, manifest, graphs, parts, owners, structure)
    structure.violations += storage_violations(parts.values(), owners)
    structure.violations += size_violations(parts.values(), weights, manifest.precision)
    if plan.thresholds is not None:
        kind = np.float16 if manifest.precision == "fp16" else np.float32
        structure.violations += threshold_violations(compared_numbers(written.values()), manifest, kind)
    if plan.adaptive:
        structure.violations += table_violations(compared(written[STEM], "greater"), plan, "the stem")
    return structure


def _replayed(
    folder: Path,
    package: MilPackage,
    manifest: Manifest,
    graphs: Mapping[str, StaticMoRViT],
    parts: Mapping[str, Part],
    owners: Owners,
    structure: PackageStructure,
) -> list[str]:
    """Compare values, choices and copies, unless weights or probes are already known to differ."""
    if structure.violations:
        return []
    exact = as_stored(graphs, parts.values(), owners, manifest.precision)
    found = [
        f"bucket {bucket}: {violation}" if manifest.plan.adaptive else violation
        for bucket, graph in exact.items()
        for violation in value_violations(package, graph, manifest, bucket)
    ]
    if not found and manifest.plan.adaptive:
        found = choice_violations(package, exact, manifest)
    written = {name: part.function for name, part in parts.items()}
    return found or copy_violations(folder, manifest, written, exact)


def _read_off(folder: Path, manifest: Manifest, written: Mapping[str, Function]) -> PackageStructure:
    """Counts that need no knowledge of the plan."""
    operations = [op for function in written.values() for op in computed(function)]
    return PackageStructure(
        nodes=len(operations),
        operators=dict(Counter(op.type for op in operations).most_common()),
        macs={},
        block_applications={},
        weight_bytes=(folder / PACKAGE / WEIGHTS).stat().st_size,
        file_bytes=sum(file.bytes for file in manifest.files if Path(file.path).is_relative_to(PACKAGE)),
        functions={
            name: {
                "operations": sum(1 for _ in computed(function)),
                "leave_neural_engine": [asdict(one) for one in leaving(function)],
            }
            for name, function in written.items()
        },
    )


def _bucket_violations(
    parts: list[Part],
    bucket: str,
    graph: StaticMoRViT,
    promise: Promise,
    owners: Owners,
    manifest: Manifest,
    structure: PackageStructure,
) -> list[str]:
    """Check the functions that run for one bucket; records its MACs and block applications in `structure`."""
    functions = [part.function for part in parts]
    uses, found = count_uses(parts, owners)
    structure.block_applications = block_applications(uses)
    counted = [count_macs(function) for function in functions]
    macs = sum(counted, Macs())
    structure.macs[bucket] = macs.products
    return [
        *found,
        *use_violations(uses, promise.weights),
        *mac_violations(macs, graph, manifest.plan),
        *probe_violations(functions, bucket, promise.probes, manifest),
    ]
