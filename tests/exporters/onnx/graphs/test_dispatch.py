"""Bundles of several buckets in ONNX Runtime, against the float64 reference that routes each image on its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from adaptive_plans import answered_by, depth_plan, fits, threshold_plan
from bucket_plans import threshold_ladder
from numpy.typing import NDArray
from onnx import external_data_helper, numpy_helper
from tiny_models import make_config, normalised, random_model, random_pixels

from morvit_deploy import open_bundle
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.errors import PlanError
from morvit_deploy.exporters.onnx.graphs.branches import INLINE_BYTES
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.graphs.plain import plain_graph
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.trace import Outcome, Routing

LOGITS = 1e-4  # × max(1, max |logit|): float32 against float64 over some layers
MARGIN = 1e-4  # router logits closer than this may fall either way by float32 round-off
CLOSE = 1e-5  # the same float32 nodes in another graph: only the order of sums differs
PAGES = 2 * 4096  # bytes: a constant of a bucket fills a page; another copy of a block would fill four
IMAGES = 8
TOGETHER = [list(range(IMAGES))]
Exported = Callable[..., Path]


@dataclass(frozen=True)
class Case:
    """A tiny model, a plan whose every bucket answers some of the images, and how the bundle is written."""

    changes: dict[str, Any]
    make_plan: Callable[[Config], Plan]
    options: dict[str, Any] = field(default_factory=dict)
    groups: list[list[int]] = field(default_factory=lambda: TOGETHER)  # images given to one call

    @property
    def config(self) -> Config:
        """The model's."""
        return make_config(**self.changes)

    @property
    def plan(self) -> Plan:
        """The ladder and `full`."""
        return self.make_plan(self.config)

    def bundle(self, exported: Exported) -> Path:
        """The exported bundle."""
        return exported(self.config, plan=self.plan, **self.options)

    def judge(self, pixels: NDArray[np.uint8]) -> Outcome:
        """The float64 reference under the plan's thresholds, each image ragged."""
        model = random_model(self.config).double()
        outcome = model(normalised(self.config, pixels), Routing(thresholds=self.plan.thresholds))
        assert min(trace.margin for trace in outcome.traces) > MARGIN, "choose another seed"
        return outcome


def thresholds(
    taus: tuple[float | None, ...], ladder: list[tuple[int, ...]], upto: tuple[int, ...]
) -> Callable[[Config], Plan]:
    return lambda config: threshold_plan(config, taus, ladder, upto)


def depths(ladder: list[tuple[int, ...]]) -> Callable[[Config], Plan]:
    return lambda config: depth_plan(config, ladder)


CASES = {
    "expert active, graph, batch 1": Case({}, lambda config: threshold_ladder()),
    "expert active, host, batch 3": Case(  # the first step is not routed: the stem ends after it
        {},
        thresholds((None, 0.0, 0.2), [(16, 10, 2)], (10,)),
        {"with_depth": True, "dispatch": "host", "batch": 3},
    ),
    "expert all, graph, dynamic": Case(
        {"attention_scope": "all", "gate": "delta"},
        thresholds((0.1, 0.0, 0.2), [(6, 4, 1)], (6,)),
        {"batch": "dynamic"},
        [[3, 4, 5, 7], [6, 5], [2], [0, 4], *TOGETHER],
    ),
    "expert all, host, batch 1, float": Case(
        {"sharing": "cycle", "gate": "hard", "attention_scope": "all", "cycle_depth": 2},
        thresholds((0.0, None, 0.1), [(8, 8, 5)], (8,)),
        {"dispatch": "host", "input": "float"},
    ),
    "token all, graph, batch 3": Case(
        {"routing": "token_choice"},
        depths([(16, 8, 5, 4, 2), (16, 10, 6, 3, 1)]),
        {"with_depth": True, "batch": 3},
        [[0, 3, 4], [1, 5], [2, 3, 6], [7]],
    ),
    "token active, host, batch 1": Case(
        {"routing": "token_choice", "attention_scope": "active"},
        depths([(16, 8, 5, 4, 2)]),
        {"with_depth": True, "dispatch": "host"},
    ),
}
CALIBRATED = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FIRST, LAST = CASES["expert active, graph, batch 1"], CASES["token active, host, batch 1"]


def some_pixels(case: Case) -> NDArray[np.uint8]:
    return random_pixels(case.config, IMAGES, seed=11)


def assert_logits(found: NDArray, wanted: NDArray) -> None:
    """Each image within tolerance, and of the same class."""
    scale = np.maximum(1.0, np.abs(wanted).max(axis=1))
    assert (np.abs(found - wanted).max(axis=1) <= LOGITS * scale).all()
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).all()


def expected_dispatch(case: Case, outcome: Outcome, group: list[int]) -> tuple[list[int], list[bool]]:
    """Buckets and overflows of images run in one call."""
    counts = [outcome.traces[image].counts for image in group]
    if case.options.get("dispatch") == "host" or case.options.get("batch", 1) == 1:
        answers = [answered_by(case.plan, [image]) for image in counts]
        return [bucket for (bucket,), _ in answers], [overflow for _, (overflow,) in answers]
    return answered_by(case.plan, counts)


@CALIBRATED
def test_every_image_gets_the_plans_answer(exported: Exported, case: Case) -> None:
    pixels = some_pixels(case)
    outcome = case.judge(pixels)
    seen, overflown = set(), set()
    with open_bundle(case.bundle(exported), threads=1) as session:
        for group in case.groups:
            answer = session.run(pixels[group])
            assert answer["logits"].dtype == np.float32
            assert_logits(answer["logits"], outcome.logits.numpy()[group])
            buckets, overflow = expected_dispatch(case, outcome, group)
            assert (answer["bucket"].dtype, answer["bucket"].tolist()) == (np.int32, buckets)
            if case.plan.mode == "depth":
                assert "overflow" not in answer
            else:
                assert (answer["overflow"].dtype, answer["overflow"].tolist()) == (bool, overflow)
            if "with_depth" in case.options:
                assert answer["depth"].dtype == np.uint8
                assert answer["depth"].tolist() == outcome.depth[group].tolist()
            seen |= set(buckets)
            overflown |= set(overflow)
    assert seen == set(range(len(case.plan.buckets))), "choose images that need every bucket"
    assert overflown == {True, False} or case.plan.mode == "depth"


@CALIBRATED
def test_in_any_bucket_every_image_that_fits_is_right(exported: Exported, case: Case) -> None:
    pixels = some_pixels(case)
    outcome = case.judge(pixels)
    bundle = case.bundle(exported)
    with open_bundle(bundle, threads=1) as session:
        dispatched = session.run(pixels) if case.groups == TOGETHER else None
    for number, bucket in enumerate(case.plan.buckets):
        fitting = [fits(trace.counts, bucket) for trace in outcome.traces]
        with open_bundle(bundle, threads=1, bucket=bucket.name) as session:
            answer = session.run(pixels)
        assert "bucket" not in answer
        assert any(fitting)
        assert_logits(answer["logits"][fitting], outcome.logits.numpy()[fitting])
        if case.plan.mode == "threshold":
            assert answer["overflow"].tolist() == [not fit for fit in fitting]
        if "with_depth" in case.options:
            assert answer["depth"][fitting].tolist() == outcome.depth[fitting].tolist()
        if dispatched is not None:  # the same nodes, with and without an If around them
            chosen = dispatched["bucket"] == number
            assert np.abs(answer["logits"] - dispatched["logits"])[chosen].max() <= CLOSE


def initializers(folder: Path) -> Iterator[tuple[Path, onnx.TensorProto, bool]]:
    """Every initializer of every graph of a bundle; is it in a branch?"""
    for path in folder.glob("*.onnx"):
        graphs = every_graph(onnx.load(path, load_external_data=False).graph)
        for number, graph in enumerate(graphs):
            yield from ((path, init, number > 0) for init in graph.initializer)


@CALIBRATED
def test_each_weight_is_stored_once(exported: Exported, case: Case) -> None:
    bundle = case.bundle(exported)
    content = (bundle / "weights.bin").read_bytes()
    stored: dict[str, bytes] = {}
    for path, init, in_branch in initializers(bundle):
        if external_data_helper.uses_external_data(init):
            place = external_data_helper.ExternalDataInfo(init)
            assert place.location == "weights.bin" and not in_branch
            part = content[place.offset :][: place.length]
            assert stored.setdefault(f"{place.offset}", part) == part
        else:
            array = numpy_helper.to_array(init)
            assert array.nbytes < INLINE_BYTES, f"{path.name}: {init.name}"
            assert not (in_branch and "." in init.name), "a weight belongs to the graph around the branches"
    assert len(set(stored.values())) == len(stored)
    assert stored


@CALIBRATED
def test_the_files_are_plain_onnx(exported: Exported, case: Case) -> None:
    bundle = case.bundle(exported)
    manifest = open_manifest(bundle)
    parts = {"stem", *(bucket.name for bucket in case.plan.buckets)}
    host = case.options.get("dispatch") == "host"
    assert manifest.dispatch == ("host" if host else "graph")
    graphs = {f"{part}.onnx" for part in parts} if host else {"model.onnx"}
    assert {path.name for path in bundle.iterdir()} == {*graphs, "weights.bin", "manifest.json"}
    for name in graphs:
        onnx.checker.check_model(bundle / name, full_check=True)
        model = onnx.load(bundle / name, load_external_data=False)
        nodes = [node for graph in every_graph(model.graph) for node in graph.node]
        assert len({node.name for node in nodes}) == len(nodes)
        assert not any(node.metadata_props or node.doc_string for node in nodes)
        assert b".py" not in (bundle / name).read_bytes()
    for bucket in case.plan.buckets:
        plain = plain_graph(bundle, manifest, bucket.name, weights=True)
        onnx.checker.check_model(plain, full_check=True)
        assert not any(node.op_type == "If" for node in plain.graph.node)


def test_more_buckets_add_no_weights(exported: Exported, tiny_bundle: Path) -> None:
    """Three buckets' weights are one bucket's; what they have of their own are small constants."""
    three = (FIRST.bundle(exported) / "weights.bin").stat().st_size
    assert abs(three - (tiny_bundle / "weights.bin").stat().st_size) <= PAGES


@pytest.mark.parametrize("case", [FIRST, CASES["token all, graph, batch 3"]], ids=["expert", "token"])
def test_any_program_can_run_it(exported: Exported, case: Case) -> None:
    """ONNX Runtime alone: an image in, logits out, the documented names in the documented order."""
    bundle, pixels = case.bundle(exported), some_pixels(case)
    batch = case.options.get("batch", 1)
    session = ort.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("image", [batch, 32, 32, 3])]
    names = [output.name for output in session.get_outputs()]
    assert names == ["logits", "bucket", *(["overflow"] if case == FIRST else ["depth"])]
    assert [port.name for port in open_manifest(bundle).outputs] == names
    logits, *_ = session.run(None, {"image": pixels[:batch]})
    assert_logits(logits, case.judge(pixels[:batch]).logits.numpy())


def test_an_unknown_bucket_is_refused(exported: Exported) -> None:
    with pytest.raises(PlanError, match="got bucket 'b9'; the plan has b0, b1, full"):
        open_bundle(FIRST.bundle(exported), bucket="b9")


@pytest.mark.parametrize("case", [FIRST, LAST], ids=["graph", "host"])
def test_probes_of_one_bucket(exported: Exported, case: Case) -> None:
    """Under the names they have in a bundle of one bucket; nothing of another bucket is computed."""
    bundle, pixels = case.bundle(exported), some_pixels(case)[:2]
    with (
        open_bundle(bundle, bucket="b0") as plain,
        open_bundle(bundle, bucket="b0", probes=True) as probed,
    ):
        few, many = plain.run(pixels), probed.run(pixels)
        assert set(many) == set(few) | set(probed.manifest.probes_of("b0"))
    held = case.plan.buckets[0].capacity[1]
    assert many["step2.state"].shape == (2, 1 + held, 16)
    assert "bucket" not in many and not any("/" in name for name in many)
    assert np.abs(few["logits"] - many["logits"]).max() <= CLOSE


def test_exporting_in_another_process_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    """Also through the command line: the plan and the dispatch reach the exporter."""
    bundle = LAST.bundle(exported)
    words = ["export", bundle.parent / "checkpoint", "--plan", bundle.parent / "plan.json", "--with-depth"]
    words += ["--dispatch", "host", "-o", tmp_path / "out"]
    script = "from morvit_deploy.cli import main; main()"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], check=True, env=environment, capture_output=True
    )
    for path in bundle.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


# edges -----------------------------------------------------------------------------------------------------

EDGES = {
    "all stay, then none, one or two, then all leave": Case(
        {}, thresholds((-1e30, 9.0, 1e30), [(16, 1, 1)], (16,)), {"with_depth": True}
    ),
}


@pytest.mark.parametrize("case", EDGES.values(), ids=EDGES)
def test_edges(exported: Exported, case: Case) -> None:
    pixels = some_pixels(case)
    outcome = case.judge(pixels)
    with open_bundle(case.bundle(exported), threads=1) as session:
        answer = session.run(pixels)
    assert_logits(answer["logits"], outcome.logits.numpy())
    buckets, overflow = expected_dispatch(case, outcome, list(range(IMAGES)))
    assert answer["bucket"].tolist() == buckets
    assert answer["overflow"].tolist() == overflow
    if "depth" in answer:
        assert answer["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("taus", [(1e30, 0.0, 0.2), (None, None, None)], ids=["all leave", "nobody leaves"])
def test_full_alone_is_one_graph_without_a_choice(exported: Exported, taus: Any) -> None:
    case = Case({}, thresholds(taus, [], ()), {"with_depth": True})
    pixels = some_pixels(case)
    outcome = case.judge(pixels)
    bundle = case.bundle(exported)
    assert open_manifest(bundle).dispatch == "single"
    with open_bundle(bundle, threads=1) as session:
        answer = session.run(pixels)
    assert_logits(answer["logits"], outcome.logits.numpy())
    assert answer["depth"].tolist() == outcome.depth.tolist()
    assert "bucket" not in answer
    assert not answer.get("overflow", np.zeros(1)).any()
