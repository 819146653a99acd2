"""Static graphs to TensorRT: the ONNX graphs, the recipe, and the engines where they can be built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.base import Tell, Written
from morvit_deploy.exporters.onnx.export import OnnxExporter
from morvit_deploy.exporters.request import Request
from morvit_deploy.exporters.trt.build import build_engines
from morvit_deploy.exporters.trt.flavors import EVERY, Here, choose, form_of
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import BUILD, Flavor
from morvit_deploy.exporters.trt.options import TrtOptions
from morvit_deploy.exporters.trt.proof import prove_engines
from morvit_deploy.exporters.trt.recipe import write_recipe
from morvit_deploy.exporters.trt.run import graphs_of
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.reference import MoRViT


class TrtExporter(OnnxExporter):
    """Target `trt`: strongly typed, so every value has the type that it has in the verified ONNX.

    The manifest does not list engines, as another machine builds its own; `engines.json` has their hashes.
    """

    def check(self, request: Request, model: MoRViT, plan: Plan) -> None:
        super().check(request, model, plan)
        here = choose(TrtOptions.of(request))
        if request.precision in ("fp32", "bf16") and "SM75" in TrtOptions.of(request).compute_capability:
            raise ConfigError(
                f"precision: got {request.precision!r} for SM75, for which {here.product} supports only fp16"
            )

    def write(
        self, graphs: dict[str, StaticMoRViT], plan: Plan, request: Request, folder: Path, tell: Tell
    ) -> Written:
        here = choose(TrtOptions.of(request))
        form = form_of(TrtOptions.of(request), here, request.batch == "dynamic")
        build = folder / BUILD
        build.mkdir()
        written = super().write(graphs, plan, request, build, tell)
        files = written.files + write_recipe(
            build,
            written.files,
            form,
            precision=request.precision,
            batch=request.batch,
            workspace_mib=TrtOptions.of(request).workspace_mib,
        )
        if here.builds:
            tell(f"building engines with {here.product}")
            build_engines(build, tell)
        remarks = (*written.remarks, *_remarks(here, form, request, self.dispatch(request, plan)))
        return replace(written, files=[f"{BUILD}/{name}" for name in files], form=form, remarks=remarks)

    def prove(self, graphs: dict[str, StaticMoRViT], manifest: Manifest, folder: Path) -> dict[str, Any]:
        inside, build = graphs_of(manifest), folder / BUILD
        structure = super().prove(graphs, inside, build)
        engines = prove_engines(build, inside, structure["weight_bytes"], structure["nodes"])
        structure["violations"] += engines.pop("violations")
        return structure | {"proved": not structure["violations"], **engines}


# where --flavor is not given; another flavor also builds the same graphs: `morvit-deploy build --flavor …`
_CHOSEN: dict[Flavor, str] = {
    "rtx": "flavor rtx was chosen, because {product} is installed here and TensorRT is not; its engines run on RTX "
    "GPUs, not on a Jetson: for TensorRT export with --flavor tensorrt",
    "tensorrt": "flavor tensorrt was chosen ({product}); for TensorRT-RTX export with --flavor rtx",
}


def _remarks(here: Here, form: TrtForm, request: Request, dispatch: str) -> tuple[str, ...]:
    """How the engines were built or are to be built, and what runs them."""
    found = [] if TrtOptions.of(request).flavor else [_CHOSEN[here.flavor].format(product=here.product)]
    if here.builds:
        gpus = ", ".join(form.compute_capability) or (EVERY if here.flavor == "rtx" else "this GPU")
        found.append(f"engines were built with {here.product}, for {gpus}")
    else:
        found.append(
            f"no engine was built: {here.why_not}. On the device type `python3 {BUILD}/build.py` in the bundle, or "
            f"here `morvit-deploy build {request.out} --host user@device`"
        )
    if here.builds and not here.runs:
        found.append(
            "there is no GPU here, so the engines were built but not run: the results are ONNX Runtime's"
        )
    if dispatch == "graph":
        found.append(
            "an engine that chooses its bucket cannot be captured in a CUDA graph; with dispatch 'host' engines can"
        )
    return tuple(found)
