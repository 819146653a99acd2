"""The files of an ONNX bundle. No torch."""

from __future__ import annotations

from morvit_deploy.model.plan import Plan

GRAPH, WEIGHTS = "model.onnx", "weights.bin"


def graph_files(dispatch: str, plan: Plan) -> dict[str, str]:
    """Part of a bundle to its file: `stem` and each bucket with host dispatch, otherwise one graph."""
    if dispatch != "host":
        return {"model": GRAPH}
    return {part: f"{part}.onnx" for part in ("stem", *(bucket.name for bucket in plan.buckets))}
