"""Static graphs to ONNX: `model.onnx`, or a stem and trunks, beside one `weights.bin` that holds each weight once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch

from morvit_deploy.bundle import Manifest, Port
from morvit_deploy.exporters import onnx_structure
from morvit_deploy.exporters.base import Exporter, Request, Written, example_image
from morvit_deploy.exporters.onnx_dispatch import ORDER, self_dispatching, separate
from morvit_deploy.exporters.onnx_files import write_graphs
from morvit_deploy.exporters.onnx_parts import StemPart, TrunkPart, Unanswered, Whole, name_carried
from morvit_deploy.exporters.onnx_pieces import trace
from morvit_deploy.exporters.run_onnx import GRAPH, graph_files
from morvit_deploy.plan import Plan
from morvit_deploy.unroll import StaticMoRViT


class OnnxExporter(Exporter):
    """Target `onnx`: opset 20, one initializer for each unique weight."""

    target = "onnx"

    def write(self, graphs: dict[str, StaticMoRViT], plan: Plan, request: Request, folder: Path) -> Written:
        dynamic = request.batch == "dynamic"
        image = example_image(next(iter(graphs.values())), 2 if dynamic else int(request.batch))
        if not plan.adaptive:
            (graph,) = graphs.values()
            model, probes = trace(Whole(graph), [image], dynamic=dynamic)
            return _written(write_graphs(folder, {GRAPH: model}), [model], probes)
        pieces = _Pieces(graphs, plan, image, dynamic, inside=request.dispatch == "graph")
        if request.dispatch == "host":
            parts = separate(pieces.stem, pieces.trunks)
            names = graph_files("host", plan)
            files = write_graphs(folder, {names[part]: model for part, model in parts.items()})
            return _written(
                files, [parts["stem"], parts[plan.buckets[-1].name]], pieces.probes, pieces.carried
            )
        assert pieces.unanswered is not None
        model = self_dispatching(pieces.stem, pieces.trunks, pieces.unanswered)
        return _written(write_graphs(folder, {GRAPH: model}), [model], pieces.probes)

    def prove(self, graphs: dict[str, StaticMoRViT], manifest: Manifest, folder: Path) -> dict[str, Any]:
        return onnx_structure.prove(folder, manifest, graphs).as_dict()


class _Pieces:
    """A stem and a trunk for each bucket, traced one after the other; probes are named after where they will be."""

    def __init__(
        self, graphs: dict[str, StaticMoRViT], plan: Plan, image: torch.Tensor, dynamic: bool, inside: bool
    ) -> None:
        first = next(iter(graphs.values()))
        carried, examples = name_carried(first, image)
        self.stem, probes = trace(StemPart(first, plan, carried), [image], dynamic=dynamic)
        self.carried = tuple(carried.values())
        self.probes = (*(name for name in self.carried if not name.startswith("stem.")), *probes)
        self.trunks: dict[str, onnx.ModelProto] = {}
        for bucket, graph in graphs.items():
            trunk = TrunkPart(graph, carried, inside=inside)
            self.trunks[bucket], probes = trace(trunk, examples, dynamic=dynamic)
            self.probes += tuple(f"{bucket}/{name}" for name in probes)
        self.unanswered = trace(Unanswered(trunk), examples, dynamic=dynamic)[0] if inside else None


def _written(
    files: list[str], models: list[onnx.ModelProto], probes: tuple[str, ...], carried: tuple[str, ...] = ()
) -> Written:
    outputs = {value.name: value for model in models for value in model.graph.output}
    return Written(
        files=files,
        inputs=tuple(_port(value) for value in models[0].graph.input),
        outputs=tuple(_port(outputs[name]) for name in ORDER if name in outputs),
        carried=tuple(_port(value) for name, value in outputs.items() if name in carried),
        probes=probes,
    )


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return Port(name=value.name, dtype=dtype, shape=shape)
