"""Static graphs to ONNX: `model.onnx`, or a stem and trunks, beside one `weights.bin` that holds each weight once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morvit_deploy.bundle import Manifest
from morvit_deploy.exporters import onnx_structure
from morvit_deploy.exporters.base import Exporter, Request, Written, example_image
from morvit_deploy.exporters.onnx_assembly import trace_pieces, write_pieces
from morvit_deploy.plan import Plan
from morvit_deploy.unroll import StaticMoRViT


class OnnxExporter(Exporter):
    """Target `onnx`: opset 20, one initializer for each unique weight."""

    target = "onnx"

    def write(self, graphs: dict[str, StaticMoRViT], plan: Plan, request: Request, folder: Path) -> Written:
        dynamic = request.batch == "dynamic"
        image = example_image(next(iter(graphs.values())), 2 if dynamic else int(request.batch))
        pieces = trace_pieces(graphs, plan, image, dynamic=dynamic, inside=request.dispatch == "graph")
        return write_pieces(pieces, plan, folder)

    def prove(self, graphs: dict[str, StaticMoRViT], manifest: Manifest, folder: Path) -> dict[str, Any]:
        return onnx_structure.prove(folder, manifest, graphs).as_dict()
