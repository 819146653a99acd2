"""One bucket of a written bundle as a plain graph, for proofs and for running it alone. No torch."""

from __future__ import annotations

from pathlib import Path

import onnx

from morvit_deploy.bundle import Manifest
from morvit_deploy.exporters.onnx_dispatch import one_bucket
from morvit_deploy.exporters.run_onnx import graph_files

RESULTS = ("logits", "overflow", "depth")


def plain_graph(folder: Path, manifest: Manifest, bucket: str, *, weights: bool = False) -> onnx.ModelProto:
    """The bucket's nodes as they stand in the files, without an If; with `weights`, the values of weights.bin too."""
    files = graph_files(manifest.dispatch, manifest.plan)
    names = [files["stem"], files[bucket]] if manifest.dispatch == "host" else [files["model"]]
    parts = [onnx.load(folder / name, load_external_data=weights) for name in names]
    return one_bucket(parts, bucket, RESULTS) if manifest.plan.adaptive else parts[0]
