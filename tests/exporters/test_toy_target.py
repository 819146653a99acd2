"""A target that another package brings: every command takes it, and no other file knows of it."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from commands import answer, run

from morvit_deploy.agent.core.running import Arrays, Runner
from morvit_deploy.exporters.base import Exporter, Written, plain_ports
from morvit_deploy.exporters.options import Help, TargetOptions
from morvit_deploy.exporters.structure import Structure
from morvit_deploy.exporters.targets import Needs, Target, register
from morvit_deploy.graph.unroll import unroll_plan
from morvit_deploy.model.reference import MoRViT


@dataclasses.dataclass(frozen=True)
class ToyOptions(TargetOptions):
    squeeze: Annotated[bool, Help("Compress the weights.")] = False


class ToyExporter(Exporter):
    def write(self, graphs: Any, plan: Any, request: Any, folder: Path, tell: Any) -> Written:
        (graph,) = graphs.values()
        save = np.savez_compressed if ToyOptions.of(request).squeeze else np.savez
        save(folder / "weights.npz", **{name: value.numpy() for name, value in graph.state_dict().items()})
        return Written(["weights.npz"], *plain_ports(graph.config, request))

    def prove(self, graphs: Any, manifest: Any, folder: Path) -> dict[str, Any]:
        return Structure({bucket.name: bucket.macs for bucket in manifest.plan.buckets}).as_dict()


class ToyRunner(Runner):
    def __init__(self, folder: Path, manifest: Any, *_: object) -> None:
        (self.graph,) = unroll_plan(MoRViT(manifest.config), manifest.plan).values()
        weights = np.load(folder / "weights.npz")
        self.graph.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})

    def run(self, feeds: Arrays) -> Arrays:
        with torch.no_grad():
            return {"logits": self.graph(torch.from_numpy(feeds["image"]))["logits"].numpy()}


PLACES = f"{__name__}:ToyExporter", f"{__name__}:ToyRunner"
TOY = Target("toy", "PyTorch", Needs(("torch",)), *PLACES, devices=("cpu",), options=ToyOptions)


def test_every_command(tiny_checkpoint: Path, image_files: Any, inside: Any, monkeypatch: Any) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root}/tests/helpers")  # where bench's process finds this file
    monkeypatch.setenv("MORVIT_TARGETS", "")
    monkeypatch.setattr("morvit_deploy.machine.diagnosis.try_imports", lambda names: dict.fromkeys(names, ""))
    register(f"{__name__}:TOY")
    assert "Target toy" in run("export", "--help").stdout and "toy" in run("doctor").stdout
    assert answer("export", tiny_checkpoint, "--target", "toy", "--squeeze", "-o", "bundle")["manifest"]
    assert answer("verify", "bundle", "--checkpoint", tiny_checkpoint)["passed"]
    assert answer("predict", "bundle", image_files[0])["predictions"][0]["bucket"] == "topk"
    assert answer("bench", "bundle", "--runs", 10, "--blocks", 2, "--starts", 1)["bundles"]
