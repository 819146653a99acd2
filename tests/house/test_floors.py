"""Imports point down: a module imports nothing from a floor above its own (CONTRIBUTING, The house)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import morvit_deploy

FLOORS = [
    {"agent", "errors", "files", "report", "routing"},
    {
        "config",
        "presets",
        "plan",
        "macs",
        "devices",
        "pixels",
        "precision",
        "coreml",
        "trt",
        "options",
        "probes",
        "dependencies",
        "demo_names",
    },
    {"model", "bundle", "verdict", "threads"},
    {
        *("rewrites", "blocks", "ends", "dispatch", "checkpoint", "runtime", "views"),
        *("layouts", "pointwise", "selection"),
    },
    {
        *("unroll", "baselines", "lowering", "walk", "calibration", "sources", "remote"),
        *("static", "expert_choice", "flat_choice", "token_choice"),
    },
    {
        *("compare", "verification", "exporters", "inspecting", "measuring", "planning", "pareto"),
        *("diagnosis", "doctor_views"),
    },
    {"demo", "cli"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS, start=1) for name in names}
NO_TORCH = {
    *(
        "errors",
        "files",
        "report",
        "config",
        "presets",
        "plan",
        "macs",
        "devices",
        "pixels",
        "bundle",
        "verdict",
    ),
    *("runtime", "views", "diagnosis", "calibration.images", "calibration.fitting", "calibration.histograms"),
    *("calibration.statistics", "calibration.sequence", "calibration.shards", "calibration.costs"),
    *("calibration.points", "calibration.drafting", "pareto"),
    *("calibration.ranges", "calibration.smoothing", "calibration.sensitivity", "calibration.channels"),
    *("precision", "coreml", "options", "probes"),
    *("agent.building", "agent.cuda_driver", "agent.engine", "agent.run_trt"),
    *("agent.trt_build", "agent.trt_engines", "agent.jetson.conditions", "agent.jetson.watch"),
    *("exporters.registry", "exporters.run_onnx"),
    *(
        "measuring.benchmark",
        "measuring.worker",
        "measuring.process",
        "measuring.devices",
        "measuring.remote",
    ),
    *("measuring.remote_process", "measuring.shipping", "measuring.device_parity"),
    *("remote.archive", "remote.connection", "remote.dialogue", "remote.host", "remote.loader"),
    *("remote.refusals", "remote.session", "remote.shipment", "remote.local"),
    *("measuring.device_engines", "measuring.jetson", "exporters.building_there"),
    *("trt", "exporters.run_trt", "exporters.trt_engine", "exporters.trt_flavors", "exporters.cuda_driver"),
    *("exporters.building", "exporters.trt_recipe"),
    *("inspecting.depth_maps", "inspecting.degeneracy"),
    *("sources.given", "sources.names", "sources.preprocessing"),
}

AGENT = "morvit_deploy.agent"

PACKAGE = Path(morvit_deploy.__file__).parent
ROOT = PACKAGE.parent


def sources() -> dict[str, Path]:
    """Module name below the package -> file, over the three folders."""
    files = {
        p.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): p for p in PACKAGE.rglob("*.py")
    }
    for folder in ("exporters", "calibration"):
        files |= {f"{folder}.{p.stem}": p for p in (ROOT / folder).glob("*.py")}
    return files


def imports_of(path: Path, *, top_level: bool) -> set[str]:
    """Names imported by a file; with `top_level`, only those that importing the file executes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize("module", sorted(sources()))
def test_imports_point_down(module: str) -> None:
    own = FLOOR.get(module.split(".")[0], len(FLOORS))
    for name in imports_of(sources()[module], top_level=True):
        if name.startswith("morvit_deploy."):
            part = name.split(".")[1]
            assert FLOOR[part] <= own, f"{module} (floor {own}) imports {name} (floor {FLOOR[part]})"


@pytest.mark.parametrize("module", sorted(NO_TORCH))
def test_what_runs_on_the_device_imports_no_torch(module: str) -> None:
    assert not {"torch", "onnx"} & {
        name.split(".")[0] for name in imports_of(sources()[module], top_level=True)
    }


@pytest.mark.parametrize("module", sorted(name for name in sources() if name.startswith("agent")))
def test_the_agent_imports_nothing_of_the_rest(module: str) -> None:
    own = {
        name for name in imports_of(sources()[module], top_level=False) if name.startswith("morvit_deploy")
    }
    assert all(name.startswith(AGENT) for name in own), own


def test_every_module_has_a_floor() -> None:
    parts = {name.split(".")[0] for name in sources()} - {"__init__"}
    assert parts == set(FLOOR)
