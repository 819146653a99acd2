"""Checks of a bundle's engines: they are as recorded, and store weights once. No TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morvit_deploy.agent.trt.engines import RECORD, EngineError, read_engine, read_engines
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.onnx.graphs.graphs import whole_operators
from morvit_deploy.exporters.onnx.graphs.plain import plain_graph

# An RTX engine carries its kernels' source beside the weights: 10 to 30 kB a node in all measurements. One more copy
# of a shared block in every step would add tens of kB a node in the smallest preset, and megabytes in morvit_b16.
KERNELS_PER_NODE = 48_000
STORED = 1.1  # × the bytes of the unique weights


def prove_engines(folder: Path, manifest: Manifest, weight_bytes: int, nodes: int) -> dict[str, Any]:
    """Figures and `violations` of the engines in a build folder, which may be empty."""
    whole = {
        bucket.name: whole_operators(plain_graph(folder, manifest, bucket.name))
        for bucket in manifest.plan.buckets
    }
    structure: dict[str, Any] = {"in_fp32": whole}
    if not (folder / RECORD).is_file():
        return structure | {"engines": [], "violations": []}
    violations = []
    try:
        record = read_engines(folder)
        for engine in record["engines"]:
            read_engine(folder, record, engine["name"])
    except EngineError as error:
        return structure | {"engines": [], "violations": [str(error)]}
    limit = int(STORED * weight_bytes + KERNELS_PER_NODE * nodes)
    for engine in record["engines"]:
        if engine["bytes"] > limit:
            violations.append(
                f"{engine['engine']} takes {engine['bytes']:,} bytes, at most {limit:,} expected: weights are in it "
                "more than once"
            )
    shown = ("name", "engine", "bytes", "seconds", "compute_capability", "complaints")
    total = sum(engine["bytes"] for engine in record["engines"])
    return structure | {
        "engines": [{key: engine[key] for key in shown} for engine in record["engines"]],
        "engine_bytes": total,
        "engine_to_weights": round(total / weight_bytes, 3) if weight_bytes else None,
        "built_with": {key: record[key] for key in ("flavor", "tensorrt", "device")},
        "violations": violations,
    }
