"""Static graphs to ONNX: `model.onnx`, or a stem and trunks, beside one `weights.bin` that holds each weight once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.base import Exporter, Tell, Written, example_image
from morvit_deploy.exporters.onnx import proof
from morvit_deploy.exporters.onnx.form import OnnxForm
from morvit_deploy.exporters.onnx.graphs.assembly import Pieces, trace_pieces, write_pieces
from morvit_deploy.exporters.onnx.graphs.plain import read_graph
from morvit_deploy.exporters.onnx.low.weights import WEIGHT_BITS, to_fast_tail, to_weight_blocks
from morvit_deploy.exporters.onnx.options import OnnxOptions
from morvit_deploy.exporters.onnx.releases import held_by, lowest_release
from morvit_deploy.exporters.request import Request
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.graph.lowering import lower
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.precision import Lowering


class OnnxExporter(Exporter):
    """Target `onnx`: a portable graph, one initializer for each unique weight."""

    def write(
        self, graphs: dict[str, StaticMoRViT], plan: Plan, request: Request, folder: Path, tell: Tell
    ) -> Written:
        written = self._write(graphs, plan, request, folder, tell)
        models = [read_graph(folder / name) for name in written.files if name.endswith(".onnx")]
        lowest = lowest_release(map(held_by, models))
        return replace(written, form=OnnxForm(lowest_runtime=lowest, fast_tail=_fast_tail(request)))

    def _write(
        self, graphs: dict[str, StaticMoRViT], plan: Plan, request: Request, folder: Path, tell: Tell
    ) -> Written:
        flavor = request.int8_flavor or find_target(request.target).int8_flavor
        lower(graphs, request.precision, Lowering(flavor=flavor) if request.precision == "int8" else None)
        dynamic = request.batch == "dynamic"
        image = example_image(next(iter(graphs.values())), 2 if dynamic else int(request.batch))

        def traced() -> Pieces:
            inside = self.dispatch(request, plan) == "graph"
            return trace_pieces(graphs, plan, image, dynamic=dynamic, inside=inside, progress=self.progress)

        if request.precision in WEIGHT_BITS:
            pieces, lowering = to_weight_blocks(traced(), request.precision)
            return replace(write_pieces(pieces, plan, folder), lowering=lowering)
        if _fast_tail(request):
            feeds = {"image": image.numpy()}
            pieces, lowering = to_fast_tail(traced(), plan, feeds, tell)
            return replace(write_pieces(pieces, plan, folder), lowering=lowering)
        if request.precision == "fp32":
            return write_pieces(traced(), plan, folder)
        if request.precision == "bf16":  # the range of fp32: nothing to probe
            return replace(write_pieces(traced(), plan, folder), lowering=Lowering())
        from morvit_deploy.exporters.onnx.low.halves import probe_halves
        from morvit_deploy.exporters.onnx.low.lower import to_int8
        from morvit_deploy.exporters.onnx.low.observe import Stream

        images = request.pictures.calibrating
        stream = None if images is None else Stream(images, request.batch, request.input == "uint8")
        if request.precision == "fp16":
            pieces = traced()
            lowering = Lowering() if stream is None else probe_halves(pieces, plan, stream, tell)
        else:
            assert stream is not None, "Request requires images"
            pieces, lowering = to_int8(graphs, traced, plan, request, flavor, stream, tell)
        written = write_pieces(pieces, plan, folder, inside=lowering.flavor == "trt")
        return replace(written, lowering=lowering)

    def prove(self, graphs: dict[str, StaticMoRViT], manifest: Manifest, folder: Path) -> dict[str, Any]:
        return proof.prove(folder, manifest, graphs).as_dict()


def _fast_tail(request: Request) -> bool:
    """Not of target `trt`, whose graphs are written here, too."""
    return isinstance(request.options, OnnxOptions) and request.options.fast_tail
