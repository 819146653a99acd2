"""Static graphs to Core AI: one asset, of one function or of a stem and a function for each bucket."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.base import Exporter, Tell, Written
from morvit_deploy.exporters.coreai import proof as coreai_proof
from morvit_deploy.exporters.coreai.compress import compress
from morvit_deploy.exporters.coreai.convert import HALF, converted
from morvit_deploy.exporters.coreai.form import CoreaiForm
from morvit_deploy.exporters.coreai.names import ASSET, COMPRESSOR
from morvit_deploy.exporters.coreai.options import CoreaiOptions
from morvit_deploy.exporters.coreai.printed.probes import Digests, find_values
from morvit_deploy.exporters.coreai.printed.program import ProgramText, read_program
from morvit_deploy.exporters.functions.tracing import IMAGE, Ports, functions, probe_names
from morvit_deploy.exporters.kit.accompany import accompany, lacks
from morvit_deploy.exporters.request import Request
from morvit_deploy.graph.style.styles import Options, style_of
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.machine.extras import require
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.precision import Lowering
from morvit_deploy.model.reference import MoRViT


class CoreaiExporter(Exporter):
    """Target `coreai`: an asset whose functions share weights."""

    remedies = "--precision fp32, or --weights with more bits, may help"
    _has_written = False  # has this object converted the graphs that `prove` takes?

    def check(self, request: Request, model: MoRViT, plan: Plan) -> None:
        if (weights := CoreaiOptions.of(request).weights) != "float":
            require(COMPRESSOR, f"weights {weights!r}", "coreai")

    def options(self, source: Request | Manifest, *, with_depth: bool) -> Options:
        form = CoreaiOptions.of(source) if isinstance(source, Request) else CoreaiForm.of(source)
        return Options(source.input, with_depth, style_of("bsd", form.select))

    def restore(self, graphs: dict[str, StaticMoRViT], manifest: Manifest) -> None:
        if manifest.precision == "fp16":
            halve(graphs)

    def write(
        self, graphs: dict[str, StaticMoRViT], plan: Plan, request: Request, folder: Path, tell: Tell
    ) -> Written:
        options, ports = CoreaiOptions.of(request), Ports(request)
        parts = list(functions(graphs, plan))
        for _, part, example in parts:
            ports.add(part, example)
        if request.precision == "fp16":
            halve(graphs)
        pixels, asset = request.input == "uint8", folder / ASSET
        program = converted(parts, request.precision, pixels=pixels, tell=tell)
        tell("converting to Core AI")
        program.save(asset)
        tell("finding values inside")
        probing = converted(parts, request.precision, pixels=pixels, probing=True)
        self._has_written = True
        inside = find_values(Digests(read_program(asset)), Digests(ProgramText(probing.text)), probing.probes)
        remarks = tuple(filter(None, [lacks(next(iter(graphs.values())).config, request.output)]))
        if options.weights != "float":
            tell(f"compressing weights to {options.weights}")
            compressed = compress(asset, options.weights, next(iter(graphs.values())), inside)
            inside, remarks = compressed.inside, (*remarks, *compressed.remarks)
        return Written(
            files=sorted(path.relative_to(folder).as_posix() for path in asset.rglob("*") if path.is_file()),
            inputs=(ports.inputs[IMAGE],),
            outputs=ports.results,
            carried=ports.carried,
            probes=tuple(
                name for function, found in inside.items() for name in probe_names(function, list(found))
            ),
            lowering=None if request.exact else Lowering(),
            remarks=remarks,
            form=CoreaiForm(
                select=options.select,
                weights=options.weights,
                functions=tuple(name for name, *_ in parts),
                inside=inside,
            ),
        )

    def accompany(
        self, model: MoRViT, manifest: Manifest, request: Request, folder: Path, tell: Tell
    ) -> list[str]:
        tell("writing the Swift package")
        return accompany(model, manifest, request.pictures.verifying, folder)

    def prove(self, graphs: dict[str, StaticMoRViT], manifest: Manifest, folder: Path) -> dict[str, Any]:
        return coreai_proof.prove(folder, manifest, graphs, just_written=self._has_written).as_dict()


def halve(graphs: dict[str, StaticMoRViT]) -> None:
    """Convert the buckets' modules, which share their weights, to fp16 throughout, in place."""
    for graph in graphs.values():
        graph.to(HALF)
        graph.selection = copy.copy(graph.selection)
        graph.selection.dtype = HALF
