"""Bundles of a checkpoint that owns its thresholds: exact for every target, and what is refused and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adaptive_plans import threshold_plan
from commands import refused, run
from tiny_models import make_config, normalised, random_model, random_pixels

import morvit_deploy as md
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.exporters.onnx.low import lower
from morvit_deploy.exporters.onnx.low.speed import Speed
from morvit_deploy.exporters.verification import verify
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.plan import topk_plan
from morvit_deploy.verifying.gaps import EXACT_TOLERANCE

TAUS, MEANS = (0.0, 0.0, 0.1), (8, 5, 2)
CONFIG = make_config(thresholds=TAUS, capacity=MEANS)
PLAN = threshold_plan(CONFIG, TAUS, [(6, 5, 2)], upto=(6,))
TARGETS: dict[
    str, dict[str, Any]
] = {  # two without a plan: the buckets of any plan are tested with each target
    "onnx": {"with_depth": True, "plan": PLAN},
    "trt": {"target": "trt", "precision": "fp32", "flavor": "tensorrt"},
    "coreml": {"target": "coreml", "precision": "fp32"},
}
Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle(exported: Exported) -> Path:
    return exported(CONFIG, **TARGETS["onnx"])


@pytest.fixture(scope="module")
def checkpoint(bundle: Path) -> Path:
    return bundle.parent / "checkpoint"


@pytest.mark.parametrize("target", TARGETS)
def test_the_routing_gap_is_exact(exported: Exported, target: str) -> None:
    manifest = open_manifest(exported(CONFIG, **TARGETS[target]))
    assert manifest.config.thresholds == manifest.plan.thresholds == TAUS
    found = manifest.parity
    assert found is not None and found["passed"] and found["unrolling_gap"] is None
    assert found["routing_gap"]["tolerance"] <= 100 * EXACT_TOLERANCE  # that of logits below 100
    assert found["routing_gap"]["top1_agreement"] == 1.0 and "decision_agreement" not in found["routing_gap"]
    assert all(bucket["judged"] > 0 for bucket in found["buckets"])


def test_verify(bundle: Path, checkpoint: Path) -> None:
    found = verify(bundle, checkpoint)
    assert found.passed and found.routing_gap.passed and found.routing_change is None


def test_answers_are_the_references(bundle: Path) -> None:
    pixels = random_pixels(CONFIG, 6, seed=11)
    outcome = random_model(CONFIG).double()(normalised(CONFIG, pixels))
    counts = [trace.counts for trace in outcome.traces]
    assert len(set(counts)) > 2
    with md.open_bundle(bundle, threads=1) as session:
        found = session.run(pixels)
    assert found["depth"].tolist() == outcome.depth.tolist()
    assert abs(found["logits"] - outcome.logits.numpy()).max() <= 1e-4 * float(outcome.logits.abs().max())


def test_int8_is_calibrated_in_its_buckets(
    exported: Exported, calibration_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {bucket.name: Speed(2.0, 1.0, 0.5) for bucket in PLAN.buckets}
    monkeypatch.setattr(lower, "measure_speed", lambda *_: speeds)
    bundle = exported(CONFIG, plan=PLAN, precision="int8", images=calibration_folder, allow_worse=True)
    manifest = open_manifest(bundle)
    assert manifest.lowering is not None and {*manifest.lowering.buckets} == {"stem", "b0", "full"}
    assert manifest.plan.thresholds == TAUS


def test_top_k_is_measured(checkpoint: Path, tmp_path: Path) -> None:
    plan = topk_plan(CONFIG, MEANS)
    done = md.export(checkpoint, tmp_path / "topk", plan=plan)
    found = done.verification
    assert found.passed and found.unrolling_gap is not None and found.routing_gap.max_abs > 1e-3
    assert found.routing_gap.as_dict()["tolerance"] is None
    assert "measured only" in done.report().markdown()


def test_without_a_plan_the_export_says_that_it_saves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    done = run("export", checkpoint, "-o", tmp_path / "whole")
    assert done.exit_code == 0, done.output
    said = "without a plan, a checkpoint with thresholds of its own exports the `full` bucket: exact, but"
    assert said in done.stderr
    manifest = open_manifest(tmp_path / "whole")
    assert [bucket.name for bucket in manifest.plan.buckets] == ["full"] and manifest.plan.thresholds == TAUS


def test_other_thresholds_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = threshold_plan(make_config(), (0.0, 0.0, 0.2), [(8, 6, 2)])
    (tmp_path / "plan.json").write_text(other.to_json())
    said = refused("export", checkpoint, "--plan", tmp_path / "plan.json", "-o", tmp_path / "bundle")
    assert "thresholds: got [0.0, 0.0, 0.2], expected the checkpoint's own, [0.0, 0.0, 0.1]" in said
    assert not (tmp_path / "bundle").exists()


def test_a_checkpoint_without_these_thresholds_is_another_model(bundle: Path, tmp_path: Path) -> None:
    for thresholds, shown in ((None, "None"), ((0.0, 0.0, 0.2), "[0.0, 0.0, 0.2]")):
        folder = tmp_path / shown
        save_checkpoint(random_model(make_config(thresholds=thresholds, capacity=MEANS)), folder)
        with pytest.raises(BundleError) as caught:
            verify(bundle, folder)
        assert f"thresholds: the bundle has [0.0, 0.0, 0.1], the checkpoint {shown}" in str(caught.value)


def test_an_edited_manifest_is_refused(bundle: Path, tmp_path: Path) -> None:
    fields = json.loads((bundle / "manifest.json").read_text())
    fields["config"]["thresholds"] = [0.0, 0.0, 0.2]
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(
        BundleError, match=r"expected the checkpoint's own, .*; the manifest was edited by hand"
    ):
        open_manifest(tmp_path)


@pytest.mark.slow  # tests/graph/test_baselines.py compares the graphs
def test_the_masked_form_is_exact_and_gather_scatter_needs_a_schedule(
    checkpoint: Path, tmp_path: Path
) -> None:
    done = md.export(checkpoint, tmp_path / "masked", form="masked")
    assert done.verification.passed and done.verification.unrolling_gap is None
    with pytest.raises(TargetError, match="got routing 'expert_choice' by thresholds"):
        md.export(checkpoint, tmp_path / "gathered", form="gather_scatter")


def test_inspect_shows_them(checkpoint: Path, image_files: list[Path]) -> None:
    found = md.inspect(checkpoint, image_files[0].parent)
    assert found.as_dict()["config"]["thresholds"] == list(TAUS) and not found.stages
    shown = found.report().markdown()
    assert "0, 0, 0.1 (router logits per step; – if every token continues)" in shown
    assert "without a plan every token runs every layer, which saves nothing" in shown
    assert found.survey is not None and found.macs.static == open_manifest_macs(checkpoint)


def open_manifest_macs(checkpoint: Path) -> int:
    """MACs of the bucket that holds every token, counted in the written graph."""
    return open_manifest(checkpoint.parent / "bundle").macs["full"]
