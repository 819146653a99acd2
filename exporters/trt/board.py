"""What a board needs of a TensorRT bundle. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from morvit_deploy.agent.core.running import Runner
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.board import BoardFiles
from morvit_deploy.exporters.onnx.board import bucket_graphs
from morvit_deploy.exporters.onnx.graphs.names import WEIGHTS
from morvit_deploy.exporters.trt.names import ALONE, BUILD, RECIPE
from morvit_deploy.exporters.trt.run import graphs_of, on_cpu


def board_files(bundle: Path, manifest: Manifest) -> BoardFiles:
    """Each bucket of a self-dispatching engine gets an engine and a recipe of its own.

    The expected logits come from ONNX Runtime on the same graphs, as there may be no engines here.
    """

    def open_reference() -> Runner:
        return on_cpu(bundle, manifest)

    if not manifest.plan.adaptive or manifest.dispatch == "host":
        return BoardFiles(open_reference=open_reference)
    alone = bucket_graphs(bundle / BUILD, graphs_of(manifest))
    return BoardFiles(
        alone=alone,
        alone_file=ALONE + "/{}.onnx",
        files={f"{ALONE}/{RECIPE}": bucket_recipe(bundle / BUILD, alone)},
        open_reference=open_reference,
    )


def bucket_recipe(build: Path, graphs: Mapping[str, bytes]) -> bytes:
    """The bundle's recipe, for one engine of each bucket's graph."""
    recipe = json.loads((build / RECIPE).read_text(encoding="utf-8"))
    (like,) = recipe["engines"]
    weights = [file for file in recipe["files"] if file["name"] == WEIGHTS]
    files = [
        {"name": f"{name}.onnx", "bytes": len(graph), "sha256": hashlib.sha256(graph).hexdigest()}
        for name, graph in graphs.items()
    ]
    engines = [like | {"name": name, "onnx": f"{name}.onnx", "engine": f"{name}.engine"} for name in graphs]
    return json.dumps(recipe | {"files": [*weights, *files], "engines": engines}).encode()
