"""`bench --profile`: every node belongs to a step, times add up, and what bounds a step follows from its numbers."""

from __future__ import annotations

import json
import stat
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from onnx import TensorProto, helper, numpy_helper
from tiny_models import make_config

import morvit_deploy as md
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.devices import DEVICES
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.profiling import profiling, rates
from morvit_deploy.measuring.profiling.bounds import Machine, StepProfile, bound_of
from morvit_deploy.measuring.profiling.events import node_times
from morvit_deploy.measuring.profiling.kinds import ATTENTION, KINDS, MOVEMENT, PRODUCTS, REST
from morvit_deploy.measuring.profiling.nodes import find_nodes
from morvit_deploy.measuring.profiling.rates import weights_mib
from morvit_deploy.measuring.profiling.result import Profile, without_overhead
from morvit_deploy.measuring.profiling.steps import Steps, find_steps
from morvit_deploy.measuring.views import bench_report
from morvit_deploy.timing.loop import ms_of
from morvit_deploy.timing.samples import Block

Exported = Callable[..., Path]
QUICK: dict[str, Any] = {"threads": 1, "runs": 10, "blocks": 1, "warmup": 1, "starts": 1}
ROUND_OFF = 1e-9  # ms, of sums in double precision
MACHINE = Machine(100.0, "fp32", 20.0, "a sum", 128.0)
TINY_STEPS = ("stem", "first", "step 1", "step 2", "step 3", "last", "head")


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates of the machine from small products: their values do not matter here."""
    monkeypatch.setattr(rates, "weights_mib", lambda caches: 1.0)
    monkeypatch.setattr(rates, "ROWS", 8)
    monkeypatch.setattr(profiling, "BLOCK_MS", 1.0)


@pytest.fixture(scope="module")
def result(tiny_bundle: Path) -> BenchResult:
    with pytest.MonkeyPatch.context() as patch:
        small_machine.__wrapped__(patch)  # type: ignore[attr-defined]  # of the module, made before it
        return bench(tiny_bundle, profile=True, **QUICK)


def profile_of(result: BenchResult) -> Profile:
    profile = result.measured[0].profile
    assert profile is not None
    return profile


def step(macs: int = 0, weight_bytes: int = 0, **ms: float) -> StepProfile:
    return StepProfile("step 1", ms, 1, macs, weight_bytes)


class TestSteps:
    def test_times_add_up_to_the_latency_without_the_profiler(self, result: BenchResult) -> None:
        profile = profile_of(result)
        known = sum(one.total_ms for one in profile.steps) + profile.between_ms + profile.unknown_ms
        assert known == pytest.approx(profile.latency_ms, abs=ROUND_OFF)
        assert profile.runs == 10

    def test_every_node_has_a_step(self, result: BenchResult) -> None:
        profile = profile_of(result)
        assert tuple(one.name for one in profile.steps) == TINY_STEPS
        assert profile.unknown_nodes == 0 and profile.unknown_ms == 0
        assert all(one.nodes for one in profile.steps)

    def test_macs_are_those_of_the_manifest(self, result: BenchResult) -> None:
        (macs,) = result.measured[0].macs.values()
        assert profile_of(result).whole.macs == macs

    @pytest.mark.parametrize(
        "changes",
        [
            {"routing": "none", "sharing": "none"},
            {"attention_scope": "all", "gate": "hard"},
        ],
        ids=["dense", "frozen keys"],
    )
    def test_other_routings(self, exported: Exported, changes: dict[str, Any]) -> None:
        steps, total = steps_of(exported(make_config(**changes)))
        assert steps.names[0] == "stem" and steps.names[-1] == "head"
        assert sum(steps.macs) == total
        assert len({name for name in steps.names if name.split()[0] in ("step", "layer")}) >= 1

    @pytest.mark.parametrize("form", ["masked", "gather_scatter"])
    def test_baselines_tell_blocks_apart_by_their_weights(self, exported: Exported, form: str) -> None:
        steps, total = steps_of(exported(make_config(), form=form))
        assert steps.names == ("stem", "first", "steps", "last", "head")
        assert sum(steps.macs) == total

    def test_work_of_the_same_block_shrinks_with_the_tokens(self, result: BenchResult) -> None:
        first, second, third = (one for one in profile_of(result).steps if one.name.startswith("step "))
        assert first.macs > second.macs > third.macs
        assert third.weight_bytes > 0

    def test_a_bucket_of_a_graph_that_chooses_itself(self, exported: Exported) -> None:
        folder = exported(EXPERT, plan=threshold_ladder())
        found = bench(folder, profile=True, **QUICK).measured[0]
        profile = found.profile
        assert profile is not None and profile.bucket in found.macs
        assert profile.whole.macs == found.macs[profile.bucket]
        assert profile.unknown_nodes == 0

    def test_a_dynamic_batch_whose_buckets_are_files(self, exported: Exported) -> None:
        folder = exported(TOKEN, plan=depth_ladder(), batch="dynamic", dispatch="host")
        found = bench(folder, profile=True, batch=3, **QUICK).measured[0]
        profile = found.profile
        assert profile is not None and profile.unknown_nodes == 0
        assert profile.whole.macs == 3 * found.macs[profile.bucket] and profile.batch == 3
        assert [one.name for one in profile.steps] == ["stem", "router", "step 1", "step 2", "step 3", "head"]


def steps_of(folder: Path) -> tuple[Steps, int]:
    """The steps of a bundle's only graph, and the MACs that its manifest lists."""
    manifest = open_manifest(folder)
    (bucket,) = manifest.plan.buckets
    model, _ = find_target(manifest.target).load_profiled()(folder, manifest, 1, bucket.name)
    return find_steps(model, manifest.probes_of(bucket.name)), manifest.macs[bucket.name]


class TestNodes:
    """Of a graph that an optimizer has changed: names are new, most values are not."""

    @staticmethod
    def nodes() -> dict[str, Any]:
        node = helper.make_node
        made = [
            node("Gather", ["x", "i"], ["new"], name="a"),  # computes a value that the written graph lacks
            node("FusedMatMul", ["new", "w"], ["embed"], name="b"),
            node("QGemm", ["embed", "w8"], ["q"], name="c"),
            node("FusedMatMul", ["q", "embed"], ["qk"], name="d"),
            node("Softmax", ["qk"], ["p"], name="e"),
            node("BiasGelu", ["p", "w"], ["y"], name="f"),
            node("Identity", ["x"], ["lost"], name="g"),  # nobody reads it
        ]
        held = {"w": np.ones((4, 4), np.float32), "w8": np.ones((4, 4), np.int8), "i": np.zeros(1, np.int64)}
        weights = [numpy_helper.from_array(array, name) for name, array in held.items()]
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "y")]
        graph = helper.make_graph(made, "g", ports[:1], ports[1:], weights)
        of_value = {"embed": 0, "q": 1, "qk": 1, "p": 1, "y": 2}
        return dict(
            find_nodes(helper.make_model(graph), Steps(("stem", "first", "head"), of_value, (0, 0, 0)))
        )

    def test_steps(self) -> None:
        assert [one.step for one in self.nodes().values()] == [0, 0, 1, 1, 1, 2, None]

    def test_kinds(self) -> None:
        kinds = [MOVEMENT, PRODUCTS, PRODUCTS, ATTENTION, ATTENTION, REST, MOVEMENT]
        assert [one.kind for one in self.nodes().values()] == kinds

    def test_weights_are_counted_as_they_are_stored(self) -> None:
        found = self.nodes()
        assert [found[name].weight_bytes for name in "bcd"] == [64, 16, 0]
        assert found["c"].integers and not found["b"].integers


class TestTimes:
    def test_disturbed_runs_count_for_nothing(self, tmp_path: Path) -> None:
        durations = [900, 10, 10, 12, 8, 10, 10, 700]  # the first belongs to no run that is asked for
        events = [event("a", us) for us in durations] + [{"cat": "Session", "name": "model_run", "dur": 1}]
        (tmp_path / "p.json").write_text(json.dumps(events), encoding="utf-8")
        assert node_times(tmp_path / "p.json", 7) == {"a": pytest.approx(0.0104, abs=1e-4)}

    def test_a_node_that_not_every_run_has_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "p.json").write_text(json.dumps([event("a", 1), event("a", 1), event("b", 9)]))
        assert list(node_times(tmp_path / "p.json", 2)) == ["a"]

    def test_the_same_is_taken_off_every_node(self) -> None:
        times = dict.fromkeys("abcdefghij", 5.0) | {"k": 10.0}
        left, off, factor = without_overhead(times, 27.0)
        assert off == pytest.approx(3.0) and factor == 1
        assert left["a"] == pytest.approx(2.0) and left["k"] == pytest.approx(7.0)

    def test_no_more_than_the_shortest_nodes(self) -> None:
        left, off, factor = without_overhead({"a": 1.0, "b": 99.0}, 50.0)
        assert off == 1.0 and left["a"] == 0 and left["b"] == pytest.approx(50.0)
        assert factor == pytest.approx(50 / 98)

    def test_nothing_is_taken_off_a_sum_within_the_latency(self) -> None:
        assert without_overhead({"a": 1.0}, 2.0) == ({"a": 1.0}, 0.0, 1.0)
        assert without_overhead({}, 2.0) == ({}, 0.0, 1.0)


def event(name: str, us: int) -> dict[str, Any]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": {"op_name": "Add"}}


class TestBounds:
    @pytest.mark.parametrize(
        ("one", "words"),
        [
            (step(weight_bytes=18_800_000, products=1.0), "bound by memory, at 94 % of what this machine can"),
            (step(81_000_000, 1000, products=1.0), "bound by products, at 81 % of what this machine can"),
            (step(81_000_000, products=1.0, rest=2.0), "bound by small operators, 67 % of its time"),
            (step(weight_bytes=40_000_000, products=1.0), "bound by weights from the caches, at 200 % of what its"),
            (step(10_000_000, products=0.6, rest=0.4), "no single limit: memory at 0 %, products at 10 %, small"),
            (step(), "bound by small operators, 100 % of its time"),
        ],
        ids=["memory", "products", "small operators", "caches", "none", "a step without nodes"],
    )  # fmt: skip  # a row reads better on a line
    def test_words(self, one: StepProfile, words: str) -> None:
        assert bound_of(one, MACHINE).words.startswith(words)

    def test_attention_is_no_small_operator(self) -> None:
        assert bound_of(step(81_000_000, attention=0.9, products=0.1), MACHINE).by == "products"

    def test_a_model_that_the_profiler_slows_is_told(self, result: BenchResult) -> None:
        slow = replace(profile_of(result), latency_ms=1.0, profiled_ms=2.0, unknown_ms=0.5, unknown_nodes=3)
        slowed, unknown = slow.warnings("tiny")
        assert "tiny: the profiler slows it by 100 %" in slowed
        assert unknown == "tiny: 50 % of its time is in 3 nodes of no known step"

    @pytest.mark.parametrize(
        ("sizes", "mib"), [(["32K", "512K", "32768K"], 128), (["48K"], 64), (["260M"], 256), ([], 256)]
    )
    def test_weights_are_larger_than_the_caches(self, tmp_path: Path, sizes: list[str], mib: float) -> None:
        for number, size in enumerate(sizes):
            (tmp_path / f"index{number}").mkdir()
            (tmp_path / f"index{number}" / "size").write_text(f"{size}\n")
        assert weights_mib(tmp_path) == mib


class TestReport:
    def test_json_has_every_step_and_the_machine(self, result: BenchResult) -> None:
        data = json.loads(json.dumps(result.as_dict(), allow_nan=False))["bundles"][0]["profile"]
        assert [one["step"] for one in data["steps"]] == list(TINY_STEPS)
        assert {*data["shares"]} == {*KINDS}
        assert data["machine"]["products_in"] == "fp32" and data["machine"]["gb_per_s"] > 0
        assert all(
            one["bound"]["words"].startswith(("bound by ", "no single limit")) for one in data["steps"]
        )

    def test_the_picture_has_a_bar_for_each_step(self, result: BenchResult) -> None:
        picture = bench_report(result).picture
        assert picture is not None and picture.content is not None
        drawn = picture.content.decode()
        assert all(f">{name}</text>" in drawn for name in TINY_STEPS)
        assert drawn.count("<rect") == 1 + len(KINDS) + len(KINDS) * len(TINY_STEPS)

    def test_every_bundle_of_a_comparison_has_its_own(self, tiny_bundle: Path) -> None:
        found = bench([tiny_bundle, tiny_bundle], profile=True, **QUICK)
        titles = [part.title for part in bench_report(found).parts]
        assert sum(title.startswith("What bounds") for title in titles) == 2

    def test_without_it_nothing_changes(self, tiny_bundle: Path) -> None:
        assert "profile" not in bench(tiny_bundle, **QUICK).as_dict()["bundles"][0]


class TestRefused:
    @pytest.mark.parametrize("device", [name for name in DEVICES if name != "cpu"])
    def test_devices_that_have_none(self, device: Any) -> None:
        host = "user@board" if DEVICES[device].remote else None
        with pytest.raises(
            md.ConfigError, match=rf"^profile: .* got device '{device}', so leave it out and .*'cpu'"
        ):
            md.bench("a", device=device, host=host, profile=True)

    def test_fewer_runs_than_a_block_has(self, tiny_bundle: Path) -> None:
        with pytest.raises(md.TargetError, match="runs: got 1 runs a block, expected at least 10"):
            bench(tiny_bundle, profile=True, **(QUICK | {"runs": 1}))


class TestFiles:
    def test_a_bundle_that_cannot_be_written_to(
        self, exported: Exported, tmp_path: Path, monkeypatch: Any
    ) -> None:
        folder, here, scratch = (
            exported(make_config(), with_depth=True),
            tmp_path / "here",
            tmp_path / "scratch",
        )
        here.mkdir(), scratch.mkdir()
        monkeypatch.chdir(here)
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        modes = {path: path.stat().st_mode for path in (here, folder, *folder.iterdir())}
        try:
            for path, mode in modes.items():
                path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
            before = {path.name for path in folder.iterdir()}
            assert bench(folder, profile=True, **QUICK).measured[0].profile is not None
            assert {path.name for path in folder.iterdir()} == before
        finally:
            for path, mode in modes.items():
                path.chmod(mode)
        assert [*here.iterdir(), *scratch.iterdir()] == []

    @pytest.mark.parametrize("moment", ["node_times", "measure"])
    def test_an_interrupted_run_leaves_nothing(
        self, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        def interrupt(*given: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(profiling, moment, interrupt)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
        (tmp_path / "scratch").mkdir()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            bench(tiny_bundle, profile=True, **QUICK)
        assert [*(tmp_path / "scratch").iterdir()] == [] and len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("integers", [False, True], ids=["fp32", "int8"])
def test_rates_are_measured_in_the_arithmetic_of_the_bundle(integers: bool) -> None:
    operators = [node.op_type for node in rates._large_product(integers).graph.node]
    assert operators.count("DequantizeLinear") == 2 * integers
    found = rates.Rates(ort.SessionOptions, integers=integers)
    for lane in found.lanes:
        lane.blocks.append(Block((ms_of(lane.call),)))
    machine = found.machine()
    assert machine.products_in == ("int8" if integers else "fp32")
    assert machine.gmacs_per_s > 0 and machine.read_by in (rates.BY_PRODUCTS, rates.BY_SUM)
