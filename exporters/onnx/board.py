"""What a board needs of an ONNX bundle. No torch."""

from __future__ import annotations

from pathlib import Path

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.board import BoardFiles
from morvit_deploy.exporters.onnx.graphs.names import graph_files
from morvit_deploy.exporters.onnx.releases import lowest_of
from morvit_deploy.exporters.onnx.run import multiplies_integers


def board_files(bundle: Path, manifest: Manifest) -> BoardFiles:
    """Extract each bucket's graph here, because a board has no onnx to do it."""
    alone = bucket_graphs(bundle, manifest) if manifest.plan.adaptive else {}
    more = {"integers": multiplies_integers(manifest), "lowest": lowest_of(bundle, manifest)}
    return BoardFiles(graph_files(manifest.dispatch, manifest.plan), alone, more=more)


def bucket_graphs(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Each bucket's graph without the choice, as an ONNX file's content."""
    from morvit_deploy.exporters.onnx.graphs.plain import plain_graph

    names = [bucket.name for bucket in manifest.plan.buckets]
    return {name: plain_graph(folder, manifest, name).SerializeToString() for name in names}
