"""Core ML bundles made by hand, and a Core ML that is played by ONNX Runtime, for the tests of Apple's bench."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.bundle.manifest import Manifest, describe_files, open_manifest
from morvit_deploy.bundle.session import HostDispatch
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreml.sdk.bundle import STEM, Package
from morvit_deploy.exporters.coreml.sdk.load import coremltools, quiet
from morvit_deploy.exporters.functions.names import plain_name
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.measuring.apple.dispatching import Reply
from morvit_deploy.measuring.apple.placement import CPU, NE, PlacedOp

PACKAGE = "MoRViT.mlpackage"


def save_package(path: Path, functions: Sequence[str], size: int) -> None:
    """A real package with these functions, each from a picture to its mean, ten times."""
    ct = coremltools()
    with quiet():
        from coremltools.converters.mil import Builder as mb

        @mb.program(input_specs=[mb.TensorSpec((1, 3, size, size))], opset_version=ct.target.iOS18)
        def program(image: Any) -> Any:
            weight = np.full((10, 3 * size * size), 1 / (3 * size * size), np.float32)
            return mb.linear(x=mb.reshape(x=image, shape=(1, 3 * size * size)), weight=weight, name="logits")

        model = ct.convert(
            program,
            inputs=[ct.ImageType(name="image", shape=(1, 3, size, size))],
            minimum_deployment_target=ct.target.iOS18,
            convert_to="mlprogram",
        )
        if len(functions) == 1:
            model.save(str(path))
            return
        one = path.with_name("one.mlpackage")
        model.save(str(one))
        several = ct.utils.MultiFunctionDescriptor()
        for name in functions:
            several.add_function(str(one), "main", name)
        several.default_function_name = functions[0]
        ct.utils.save_multifunction(several, str(path))
        shutil.rmtree(one)


def coreml_bundle(source: Path, folder: Path, *, ios: int = 18) -> Path:
    """The bundle `source` of target onnx, dispatched by the host or of one bucket, as one of target coreml."""
    manifest = open_manifest(source)
    names = (STEM, *manifest.macs) if manifest.plan.adaptive else ("main",)
    folder.mkdir(parents=True)
    save_package(folder / PACKAGE, names, manifest.config.image_size)
    files = sorted(p.relative_to(folder).as_posix() for p in (folder / PACKAGE).rglob("*") if p.is_file())
    known = json.loads(manifest.to_json())
    for port in known["outputs"]:
        if port["name"] in ("overflow", "depth"):
            port["dtype"] = "int32"  # Core ML answers no bool and no uint8
    known |= {
        "target": "coreml",
        "files": [file.model_dump() for file in describe_files(folder, files)],
        "target_form": {
            "ios": ios,
            "layout": "bsd",
            "select": "topk",
            "weights": "float",
            "classifier": False,
            "functions": names,
        },
    }
    (folder / "manifest.json").write_text(Manifest.model_validate_json(json.dumps(known)).to_json())
    return folder


def answers_of(source: Path) -> Callable[[np.ndarray, str | None], Arrays]:
    """Expected answers: those of the onnx bundle."""

    def run(pixels: np.ndarray, bucket: str | None) -> Arrays:
        with open_bundle(source, threads=1, bucket=bucket) as session:
            return session.run(pixels)

    return run


@dataclass
class PlayedFunction:
    """ONNX Runtime in the part of Core ML; each run takes the next of the bench's made-up times."""

    bench: Played
    name: str
    units: str = ""
    load_ms: float = 40.0
    closed: bool = False

    def run(self, feeds: Mapping[str, Any]) -> Reply:
        return Reply(self.bench.run(self.name, feeds, self.units), self.bench.tick(self.name, self.units))

    def times(self, feeds: Mapping[str, Any], runs: int) -> list[float]:
        return [self.run(feeds).ms for _ in range(runs)]

    def reload(self) -> float:
        return 4.0

    def close(self) -> None:
        self.closed = True


@dataclass
class Played:
    """A backend over the onnx bundle `source`; `spoil` makes outputs wrong, after `lost_after` runs it fails."""

    source: Path
    package: Package
    device: str = "mac"
    together: bool = True
    spoil: Callable[[str, str, Arrays], Arrays] = lambda units, name, outputs: outputs
    lost_after: int | None = None
    refuses: Callable[[str, int], str] = lambda units, runs: (
        ""
    )  # why these units fail at a run, or at loading (0)
    no_plan: str = ""
    log: list[str] = field(default_factory=list)
    opened: list[PlayedFunction] = field(default_factory=list)
    runs: int = 0

    def __post_init__(self) -> None:
        self.session = open_bundle(self.source, threads=1)
        self.runs_of: dict[str, int] = {}

    def open(self, function: str, units: str) -> PlayedFunction:
        self.log.append(f"{units}/{function}")
        if why := self.refuses(units, 0):
            raise TargetError(why)
        self.opened.append(PlayedFunction(self, function, units))
        return self.opened[-1]

    def picture(self, pixels: np.ndarray) -> Any:
        return pixels[None]

    def placement(self, function: str, units: str) -> Sequence[PlacedOp]:
        if self.no_plan:
            raise TargetError(self.no_plan)
        ops = [PlacedOp("linear", "a", NE, (NE, CPU), 0.75), PlacedOp("topk", "b", CPU, (CPU,), 0.25)]
        return ops if units in ("all", "cpu_ne") else [PlacedOp("linear", "a", CPU, (CPU,), 1.0)]

    def tick(self, name: str, units: str = "") -> float:
        self.runs += 1
        self.runs_of[units] = self.runs_of.get(units, 0) + 1
        if why := self.refuses(units, self.runs_of[units]):
            raise TargetError(why)
        if self.lost_after is not None and self.runs > self.lost_after:
            raise TargetError("the phone stopped; unlock it, and measure again")
        return {STEM: 1.0, "full": 4.0}.get(name, 2.0) + 0.001 * (self.runs % 7)

    def run(self, name: str, feeds: Mapping[str, Any], units: str) -> Arrays:
        runner = self.session.runner
        ports = [port.name for port in self.session.manifest.carried]
        named = {plain_name(port): port for port in (*ports, "image")}
        own = {named[key]: value for key, value in feeds.items()}
        part = runner
        if isinstance(runner, HostDispatch):
            part = runner.stem if name == STEM else runner.trunk(name)
        outputs = {plain_name(key): value for key, value in part.run(own).items()}
        return self.spoil(units, name, outputs)
