"""One bucket of a written bundle as a plain graph, for proofs and for running it alone. No torch."""

from __future__ import annotations

from pathlib import Path

import onnx

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.onnx.graphs.dispatch import one_bucket
from morvit_deploy.exporters.onnx.graphs.names import graph_files

RESULTS = ("logits", "overflow", "depth")


def read_graph(path: Path, *, weights: bool = False) -> onnx.ModelProto:
    """A graph file; BundleError when it is none, or its weights are not where it says."""
    try:
        return onnx.load(path, load_external_data=weights)
    except Exception as error:  # onnx and protobuf raise types of their own
        raise BundleError(f"cannot load {path}: {error}; export the bundle again") from error


def plain_graph(folder: Path, manifest: Manifest, bucket: str, *, weights: bool = False) -> onnx.ModelProto:
    """The bucket's nodes as they stand in the files, without an If; with `weights`, the values of weights.bin too."""
    files = graph_files(manifest.dispatch, manifest.plan)
    names = [files["stem"], files[bucket]] if manifest.dispatch == "host" else [files["model"]]
    parts = [read_graph(folder / name, weights=weights) for name in names]
    return one_bucket(parts, bucket, RESULTS) if manifest.plan.adaptive else parts[0]
