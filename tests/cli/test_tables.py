"""Every table of every command at 80 and 120 columns, by the real builders and from results as commands have them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bucket_plans import EXPERT, threshold_ladder
from calibration_setup import calibrated
from comparisons import comparison, row
from fake_coreml import Played, answers_of, coreml_bundle
from foreign_checkpoints import SAID, saved, vit
from measurements import measured
from places import ROOT
from scene_runs import scenes_run
from table_checks import problems, rendered
from tiny_models import make_config, random_model

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.bundle.session import kernel_warnings
from morvit_deploy.bundle.views import prediction_table
from morvit_deploy.calibration.merging.points import MergePoint
from morvit_deploy.cli.bench_apple import project_report
from morvit_deploy.cli.shared.pages import with_command
from morvit_deploy.cli.shared.stored import _table
from morvit_deploy.demo.scene_views import objects_table, ways_table
from morvit_deploy.exporters import views as exporting
from morvit_deploy.exporters.check import check_bundle
from morvit_deploy.exporters.coreml.sdk.bundle import read_package
from morvit_deploy.exporters.fit import BundleFit, Required
from morvit_deploy.exporters.trt.building import engines_report
from morvit_deploy.exporters.verification import verify
from morvit_deploy.inspecting.inspection import inspect
from morvit_deploy.inspecting.views import inspection_report
from morvit_deploy.machine.diagnosis import doctor
from morvit_deploy.machine.integer_kernels import IntegerKernels
from morvit_deploy.machine.views import doctor_report
from morvit_deploy.measuring.apple.bench import find_goldens
from morvit_deploy.measuring.apple.measure import CoreMl
from morvit_deploy.measuring.apple.running import Wish, measure_on
from morvit_deploy.measuring.apple.views import apple_report
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.board.jetson import energy_table
from morvit_deploy.measuring.compare import formats
from morvit_deploy.measuring.compare.results.views import compare_report
from morvit_deploy.measuring.core.inputs import Source
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.cuda.results import CudaResult, Timing, cuda_report
from morvit_deploy.measuring.fleet.device import FleetDevice
from morvit_deploy.measuring.fleet.result import FleetResult
from morvit_deploy.measuring.fleet.running import Outcome
from morvit_deploy.measuring.mix.views import mix_tables
from morvit_deploy.measuring.payoff.forms import ADAPTIVE, DENSE, Form
from morvit_deploy.measuring.payoff.result import Contender, Match
from morvit_deploy.measuring.payoff.views import match_table, payoff_table
from morvit_deploy.measuring.profiling.bounds import Machine, StepProfile
from morvit_deploy.measuring.profiling.result import Profile
from morvit_deploy.measuring.profiling.views import profile_tables
from morvit_deploy.measuring.regression import Change, Earlier, change_table
from morvit_deploy.measuring.views import bench_report
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.merges.schedules import MergeSchedule
from morvit_deploy.model.precision import Lowering
from morvit_deploy.planning.front import calibration_report
from morvit_deploy.planning.merges import MergeCalibrated
from morvit_deploy.report import Report, Table
from morvit_deploy.sources.conversion import read_model
from morvit_deploy.sources.settings.given import Given
from morvit_deploy.sources.views import conversion_report
from morvit_deploy.timing.loop import Stages
from morvit_deploy.timing.samples import Block
from morvit_deploy.verifying.views import fidelity_tables, neural_engine_tables

SLOW = "demo/digits_views.py"  # its tables are rendered by tests/demo/test_run.py, which runs the demo
Made = Iterable[Table | Report]


@pytest.fixture(scope="module")
def ladder(exported: Callable[..., Path]) -> Path:
    return exported(EXPERT, plan=threshold_ladder())


def exports(ladder: Path) -> Made:
    manifest, verification = open_manifest(ladder), verify(ladder, ladder.parent / "checkpoint")
    yield exporting.export_report(ladder, manifest, verification)
    layer = {"layer": "blocks.0.mlp.fc1", "alone": {"drop": 1.25, "snr_db": 31.5}, "after": None}
    found = {"layers": [layer], "before": {"drop": 3.0, "snr_db": 20.0}, "allowed": 0.5, "met": True}
    yield exporting._sensitivity_table(found)
    lowering: Any = type("Lowering", (), {"facts": {"sensitivity": found}, "flavor": None, "buckets": {}})()
    lowering.lifted, lowering.accepted = (
        ("blocks.0.mlp.fc1", "blocks.1.mlp.fc2"),
        ("gate of classes: 98.5 %",),
    )
    lowering.facts["speed"] = {"full": {"int8_ms": 12.5, "fp32_ms": 30.25, "ratio": 2.42}}
    yield from exporting.lowering_tables(manifest.model_copy(update={"lowering": lowering}))
    step = {"flips": 3, "median_margin": 0.01, "largest_margin": 0.25}
    seen = {
        "bucket": "full",
        "images": 64,
        "snr_db": 38.2,
        "median_snr_db": 40.1,
        "class_flips": 1,
        "largest_margin": 0.5,
    }
    seen |= {"token_agreement": [0.9991], "steps": [step]}
    yield from fidelity_tables(
        {"gate": {"tokens": 0.99, "top1": 0.999, "snr_db": 55.0}, "fidelity": [seen], "precision": "fp16"}
    )
    leaves = {"what": "topk", "count": 3, "said": "runs on the CPU", "source": "https://a.example"}
    yield from neural_engine_tables({"full": {"operations": 40, "leave_neural_engine": [leaves]}})


def checks(ladder: Path) -> Made:
    yield check_bundle(ladder).report()


def approximations(approximation: Path) -> Made:
    verification = verify(approximation, approximation.parent / "checkpoint")
    yield exporting.export_report(approximation, open_manifest(approximation), verification)


def profile() -> Profile:
    """Steps of every length that a table has room for."""
    names = ("stem", "first", *(f"step {number}" for number in range(1, 11)), "last", "head")
    ms = {"products": 20.1, "attention": 0.1, "movement": 0.05, "rest": 0.04}
    steps = tuple(StepProfile(name, ms, 30, 583_500_000, 28_300_000) for name in names)
    rest = (
        StepProfile("step 24", {"rest": 1.0}, 1, 0, 0),
        StepProfile("layer 12", {"products": 9.0}, 1, 0, 0),
    )
    machine = Machine(74.3, "fp32", 24.7, "products of one row", 128.0)
    latency_ms = sum(step.total_ms for step in (*steps, *rest))
    return Profile(
        "full",
        1,
        60,
        latency_ms,
        1.1 * latency_ms,
        1.05 * latency_ms,
        6.4,
        0.98,
        (*steps, *rest),
        0.1,
        3,
        machine,
    )


def measurements(ladder: Path) -> Made:
    result = bench([ladder, ladder], threads=1, runs=10, blocks=1, warmup=0, starts=1)
    yield bench_report(result)
    (mix, *_) = [one.mix for one in result.measured if one.mix]
    yield from mix_tables("model", replace(mix, batch=8))
    energy = {"per_image_mj": 12.5, "per_image_with_idle_mj": 30.1, "mean_mw": 5100, "idle_mw": 3000}
    energy |= {"source": "INA3221 of the board", "rails": ["VDD_GPU_SOC", "VDD_CPU_CV"]}
    table = energy_table(["model"], [replace(result.measured[0], energy=energy)])
    assert table is not None
    yield table
    forms = (Form(ADAPTIVE, threshold_ladder(), "graph"), Form(DENSE, threshold_ladder()))
    match = Match(8, tuple(Contender(form, measured((2.0,), (2.5,), batch=8)) for form in forms))
    payoff: Any = type("Payoff", (), {"bundle": "model", "matches": (match,), "left_out": ()})()
    yield payoff_table(payoff)
    yield match_table(match)
    yield compare_report(comparison(row("build/b16", 10.0, 11.0, kind="bundle"), row("resnet50", 5.0, 5.5)))
    made = formats.Made("trt", "fp16", 52_100_000, 0.985, 1e-3, 0.75, None, "not run here: NVIDIA GPUs")
    refused = formats.Made("onnx", "bf16", remark="target onnx has fp32")
    yield formats.formats_table(formats.Formats("my-model", (made, refused), None))
    earlier = Earlier(Path("before.json"), "cpu", {}, 2, "", {})
    yield change_table([Change("my-model-onnx", (10.0, 10.5), (12.0, 12.5), 0.05)], earlier)
    yield _table({"title": "T", "columns": ["a"], "rows": [["1"]], "numeric": [], "caption": "read back"})
    yield with_command(bench_report(bench(ladder, threads=1, runs=10, blocks=1, warmup=0, starts=1)))
    yield compare_report(comparison(*(row(name, 10.0, 14.0, 20.0) for name in ("a", "b"))))
    runtime = "TensorRT 10.3.0 on NVIDIA Jetson AGX Orin Developer Kit"
    yield from profile_tables("digits-expert", profile())
    timing = Timing("b", 8, (Block((1.0, 2.0)), Block((3.0,))), "b", "model", runtime, True, False)
    yield cuda_report(CudaResult("cuda", (timing,), {"timed": "by events"}))
    lanes = tuple(measured((20.0, 21.0, 25.0), bundle=f"build/{name}") for name in ("adaptive", "dense"))
    warm = ("the processor was throttled at 88.5 °C",)
    desk = Outcome(FleetDevice("desk", "cpu", {}), BenchResult("cpu", lanes, {"parity": {"x": {}}}, warm))
    lost = Outcome(
        FleetDevice("pi", "ssh", {"host": "pi"}), reason="pi was lost while running; measure it again"
    )
    yield FleetResult(("build/adaptive", "build/dense"), (desk, lost)).report()


def apple(ladder: Path, tmp_path: Path, exported: Callable[..., Path]) -> Made:
    source = exported(EXPERT, plan=threshold_ladder(), dispatch="host", batch=1)
    bundle = coreml_bundle(source, tmp_path / "bundle")
    package = read_package(bundle)
    goldens = find_goldens(open_manifest(bundle), Source(), answers_of(source))
    wish = Wish("mac", ("all", "cpu_ne", "cpu"), runs=10, blocks=1, warmup=0)
    why = "Core ML cannot load stem for cpu_ne: this system is too old for the package"
    backend = Played(source, package, refuses=lambda units, run: why if units == "cpu_ne" else "")
    device = CoreMl(package, backend, goldens, Stages())
    yield apple_report(measure_on(device, wish, None, inputs="synthetic pictures"))


def others(tiny_checkpoint: Path, image_files: list[Path], tmp_path: Path) -> Made:
    found = replace(doctor(), conditions={"load": "9.2 on 2 cores: others compute"})
    yield doctor_report(found)
    warned = kernel_warnings(Lowering(flavor="cpu"), IntegerKernels("avx2", True))
    needs = (Required("onnxruntime", "1.31", "1.16.3"),)
    fit = BundleFit("build/my-model-onnx", "onnx", "target='onnx', int8, 3 buckets", needs, warned)
    yield doctor_report(replace(found, bundle=fit))
    why = "ImportError: /usr/lib/python3/site-packages/onnx/onnx_cpp2py_export.abi3.so: undefined symbol: _ZN4onnx"
    broken = tuple(replace(lib, problem=why) for lib in found.libraries)
    yield doctor_report(replace(found, libraries=broken))
    yield inspection_report(inspect(tiny_checkpoint, image_files[0].parent, out=tmp_path / "maps"))
    read = read_model(saved(vit("abc"), tmp_path / "my model.pth"), Given(**SAID), lambda stage: None)
    yield conversion_report(read, tmp_path / "out", True)
    yield conversion_report(read, tmp_path / "out", False)
    levels = make_config(routing="token_choice", gate="hard", attention_scope="all", capacity=None)
    save_checkpoint(random_model(levels), tmp_path / "levels")
    yield inspection_report(inspect(tmp_path / "levels"))
    for found in (calibrated(), calibrated("topk"), calibrated("depth", labelled=True)):
        yield calibration_report(found, Path("plan.json"), Path("plan.pareto.png"))
    yield merges_found().report()
    top = [{"label": f"label {i}", "probability": 0.5 - 0.1 * i} for i in range(5)]
    answer = {"image": "photos/a picture.png", "bucket": "full", "top": top, "logits": [0.125] * 10}
    yield objects_table(scenes_run(warnings=("other processes used 42 % of the processor",)))
    yield objects_table(scenes_run(timed=False))
    yield ways_table(scenes_run().gain)
    yield prediction_table([answer])
    yield prediction_table([answer], with_logits=True)
    engine = {
        "engine": "full.engine",
        "bytes": 52_100_000,
        "seconds": 81.25,
        "compute_capability": ["SM87", "SM89"],
    }
    yield engines_report({"engines": [engine], "device": None, "flavor": "tensorrt", "tensorrt": "10.3.0"})
    yield project_report([("this Mac", ".venv/bin/python bench.py")], "copy it to a Mac")


@pytest.fixture(scope="module")
def all_tables(
    ladder: Path,
    approximation: Path,
    exported: Callable[..., Path],
    tiny_checkpoint: Path,
    image_files: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[Table], set[str]]:
    """Every table, and the functions that made them."""
    makers: set[str] = set()
    real = Table.__init__

    def recorded(self: Table, *args: Any, **kwargs: Any) -> None:
        code = sys._getframe(1).f_code
        makers.add(named(Path(code.co_filename), code.co_name))
        real(self, *args, **kwargs)

    made: list[Table] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "__init__", recorded)
        patch.setattr("morvit_deploy.machine.diagnosis.try_imports", lambda names: dict.fromkeys(names, ""))
        for one in (
            *exports(ladder),
            *checks(ladder),
            *approximations(approximation),
            *measurements(ladder),
            *apple(ladder, tmp_path_factory.mktemp("apple"), exported),
            *others(tiny_checkpoint, image_files, tmp_path_factory.mktemp("others")),
        ):
            made += (
                [one] if isinstance(one, Table) else [part for part in one.parts if isinstance(part, Table)]
            )
    return made, makers


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("width", [80, 120])
def test_no_word_breaks_and_no_number_leaves_its_unit(
    all_tables: tuple[list[Table], set[str]], width: int, terminal: bool
) -> None:
    found = {
        table.title: wrong for table in all_tables[0] if (wrong := problems(table, width, terminal=terminal))
    }
    assert not found


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_console_of_few_signs_shows_stand_ins(
    all_tables: tuple[list[Table], set[str]], encoding: str
) -> None:
    for table in all_tables[0]:
        assert "?" not in rendered(table, 80, encoding=encoding), table.title


def merges_found() -> MergeCalibrated:
    """What `calibrate` finds for a plain ViT of the size of DeiT-S, with labels."""
    schedules = [
        MergeSchedule(merges=(r,) * 11, proportional=weighted) for r, weighted in ((13, True), (23, False))
    ]
    points = tuple(
        MergePoint(kind, one, 2_631_000_000 + number, 0.995, 0.0123, 0.798)
        for number, (kind, one) in enumerate(zip(("searched", "decreasing"), schedules, strict=True))
    )
    return MergeCalibrated(schedules[0], points[0], points, 4_225_000_000, 0.799, 2_700_000_000.0, 1000)


def named(file: Path, function: str) -> str:
    """A function by its folder and file: `views.py` is in many folders."""
    return f"{file.parent.name}/{file.name} {function}"


def makers_in(file: Path) -> Iterator[str]:
    """The functions of a file that make a table."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            called = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
            if any(isinstance(name, ast.Name) and name.id == "Table" for name in called):
                yield named(file, node.name)


def test_none_is_left_out(all_tables: tuple[list[Table], set[str]]) -> None:
    folders = [ROOT / name for name in ("morvit_deploy", "exporters", "calibration")]
    files = [
        file for folder in folders for file in folder.rglob("*.py") if not file.as_posix().endswith(SLOW)
    ]
    known = {maker for file in files for maker in makers_in(file)}
    assert len(known) > 30
    assert known <= all_tables[1], "give each function that makes a table a case above"
