"""Every device is measured by the one loop, and nothing else reads the clock in a loop of its own."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from adaptive_plans import threshold_plan
from bucket_plans import threshold_ladder
from calibration_setup import save_model
from fake_coreml import Played, answers_of, coreml_bundle
from fake_cuda import fake_gpu, put_engines
from fake_session import FakeSession
from places import ROOT
from tiny_models import make_config

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.exporters.coreml.sdk.bundle import read_package
from morvit_deploy.exporters.onnx.low import speed
from morvit_deploy.measuring.apple import measure as apple
from morvit_deploy.measuring.apple.bench import find_goldens
from morvit_deploy.measuring.apple.measure import CoreMl
from morvit_deploy.measuring.apple.running import Wish, measure_on
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.board import bench as board
from morvit_deploy.measuring.core.inputs import Source
from morvit_deploy.measuring.cpu import lanes as cpu
from morvit_deploy.measuring.cuda import bench as cuda
from morvit_deploy.planning import schedule_costs
from morvit_deploy.remote.host import Host
from morvit_deploy.timing import loop

CONFIG = make_config()
FEW: dict[str, Any] = {"runs": 10, "blocks": 1, "warmup": 0}
CLOCKS = {
    "morvit_deploy/timing/loop.py",
    "morvit_deploy/agent/serving.py",  # the same block on a device, in an older Python
    "morvit_deploy/agent/core/child.py",  # from a process's start to its first line
    "morvit_deploy/remote/session.py",  # how long setting up the agent took
}

Exported = Callable[..., Path]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the lanes that went through the loop."""
    names: list[str] = []

    def measure(device: Any, lanes: Any, amount: Any, stages: Any) -> Any:
        held = list(lanes)
        names.extend(lane.name for lane in held)
        return loop.measure(device, held, amount, stages)

    modules: list[ModuleType] = [cpu, board, cuda, apple, speed, schedule_costs]
    for module in modules:
        monkeypatch.setattr(module, "measure", measure)
    return names


def test_cpu(seen: list[str], tiny_bundle: Path) -> None:
    result = bench(tiny_bundle, threads=1, starts=1, **FEW)
    assert seen == [str(tiny_bundle)]
    assert result.conditions["parity"][str(tiny_bundle)]["apart"] == 0


def test_board(seen: list[str], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "Session", FakeSession)
    bench(tiny_bundle, device="ssh", host=Host("board"), threads=1, starts=1, **FEW)
    assert seen == [str(tiny_bundle)]


def test_cuda(seen: list[str], exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = exported(
        CONFIG, target="trt", precision="fp32", flavor="tensorrt", plan=threshold_ladder(), dispatch="host"
    )
    bundle = Path(shutil.copytree(made, tmp_path / "bundle"))
    fake_gpu(monkeypatch)
    put_engines(bundle)
    result = cuda.bench_cuda(bundle, **FEW)
    assert len(seen) == len(result.measured) == 2 * 2 * 4  # with and without a graph, both ways, every part
    assert len(result.conditions["parity"]) == 2 * 3, "of every trunk"


def test_apple(seen: list[str], exported: Exported, tmp_path: Path) -> None:
    plan = threshold_plan(CONFIG, (0.0, 0.0, 0.0), [(8, 5, 3)], [9])
    source = exported(CONFIG, plan=plan, dispatch="host", batch=1)
    bundle = coreml_bundle(source, tmp_path / "bundle")
    package = read_package(bundle)
    goldens = find_goldens(open_manifest(bundle), Source(), answers_of(source))
    wish = Wish("mac", ("all", "cpu"), **FEW)
    device = CoreMl(package, Played(source, package), goldens, loop.Stages())
    measure_on(device, wish, None, inputs="synthetic pictures")
    assert seen == [f"{bundle} [all]", f"{bundle} [cpu]"]


def test_int8_speed(seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_graph", lambda pieces, part, feeds: lambda: sum(range(pieces)))
    pieces: Any = (20_000, 5_000)
    found = speed.measure_speed(*pieces, threshold_ladder(), {})
    assert seen == ["fp32", "lowered"] * len(found)
    assert all(0 < one.low_ms < one.fp32_ms for one in found.values())


def test_schedule_costs(seen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_costs, "PARTS", (0, 1))
    monkeypatch.setattr(schedule_costs, "BLOCKS", 1)
    schedule_costs.measure_costs(save_model(tmp_path / "model"), None, threads=1)
    assert seen == ["stem.onnx", "b0.onnx", "full.onnx"]


def test_a_gpu_that_computes_something_else_is_not_timed(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_cuda import FakeContext

    from morvit_deploy.errors import ParityError

    made = exported(CONFIG, target="trt", precision="fp32", flavor="tensorrt")
    bundle = Path(shutil.copytree(made, tmp_path / "bundle"))
    trt = fake_gpu(monkeypatch)
    put_engines(bundle)
    work = FakeContext.work

    def wrong(context: Any) -> None:
        work(context)
        import ctypes

        held = ctypes.cast(context.addresses["logits"], ctypes.POINTER(ctypes.c_float))
        held[0] += 1.0

    monkeypatch.setattr(FakeContext, "work", wrong)
    monkeypatch.setattr(cuda.Gpu, "run", lambda *_: pytest.fail("was timed"))
    with pytest.raises(
        ParityError, match=r"returns other logits on the GPU \(model, batch 1\).* 16 images 16"
    ):
        cuda.bench_cuda(bundle, **FEW)
    assert not trt.driver.memory and not trt.driver.streams


def test_the_clock_is_read_in_one_place() -> None:
    folders = ("morvit_deploy", "exporters", "calibration")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    reading = {path.relative_to(ROOT).as_posix() for path in files if _reads_the_clock(path)}
    assert reading == CLOCKS


def _reads_the_clock(path: Path) -> bool:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return any(isinstance(node, ast.Attribute) and node.attr.startswith("perf_counter") for node in nodes)
