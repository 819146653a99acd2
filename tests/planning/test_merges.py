"""`md.calibrate_merges`: a schedule within a budget, its report, and its file, which `export` takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_models import make_config, random_model, random_pixels

import morvit_deploy as md
from morvit_deploy.calibration.merging.points import merged_macs
from morvit_deploy.model.checkpoint import fingerprint
from morvit_deploy.model.merges.schedules import MergeSchedule
from morvit_deploy.model.plan import own_plan
from morvit_deploy.planning import merge_latency, merges


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merges") / "vit"
    md.save_checkpoint(random_model(make_config(routing="none", sharing="none", cycle_depth=4)), folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(random_pixels(make_config(), 6)):
        Image.fromarray(pixels).resize((40, 40)).save(folder / f"{number}.png")
    return folder


def test_from_photos_to_a_bundle(vit: Path, photos: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    found = md.calibrate_merges(vit, photos, "0.75x", tries=4, progress=shares.append)
    assert found.chosen.macs <= found.budget == 0.75 * found.unmerged
    assert found.chosen in found.points and found.images == 6
    assert shares == sorted(shares) and shares[-1] <= 1
    file = found.save(tmp_path / "merges.json")
    fields = json.loads(file.read_text())
    assert fields["checkpoint"] == fingerprint(vit)
    assert fields["calibration"]["chosen"]["macs"] == found.chosen.macs
    with pytest.raises(md.OutputError):
        found.save(file)
    found.save(file, force=True)
    exported = md.export(vit, tmp_path / "merged", merge=file)
    assert exported.verification.passed
    assert exported.manifest.macs["topk"] == found.chosen.macs
    verification = md.verify(tmp_path / "merged", vit)  # the unmerged checkpoint
    assert verification.passed and verification.same_checkpoint


def test_the_report_shows_the_curve(vit: Path, photos: Path) -> None:
    found = md.calibrate_merges(vit, photos, "0.8x", tries=0)
    text = found.report().markdown()
    assert "same class" in text and "→" in text and found.conclusion in text
    assert "fewer than the unmerged ViT" in repr(found.conclusion)
    assert "MergeCalibrated(" in repr(found)


class Clock:
    """Milliseconds that are invented: a percent of the unmerged MACs each, times `slower` for a schedule alone."""

    def __init__(self, slower: float = 1.0) -> None:
        self.slower, self.alone = slower, 0

    def __call__(self, model: Any, schedules: Sequence[MergeSchedule | None], **how: Any) -> list[float]:
        assert how["threads"] == 1
        unmerged = own_plan(model.config).buckets[0].macs
        self.alone += len(schedules) == 1
        slower = self.slower if len(schedules) == 1 else 1.0
        macs = [merged_macs(model.config, s) if s is not None else unmerged for s in schedules]
        return [100 * slower * one / unmerged for one in macs]


def test_milliseconds_are_met_by_the_schedule_itself(
    vit: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "measure_latency", Clock())
    found = md.calibrate_merges(vit, photos, budget_ms=80, threads=1, tries=4)
    assert found.timing is not None and found.timing.chosen <= 80 and found.timing.unmerged == 100
    assert 0.7 * found.unmerged < found.chosen.macs <= found.budget <= 0.8 * found.unmerged
    assert "ms here, where the unmerged ViT takes 100 ms" in found.conclusion
    fields = json.loads(found.save(tmp_path / "merges.json").read_text())
    assert fields["calibration"]["budget_ms"] == 80 and fields["calibration"]["unmerged_ms"] == 100
    assert md.export(vit, tmp_path / "merged", merge=tmp_path / "merges.json").verification.passed


def test_a_schedule_that_takes_longer_than_expected_is_searched_again(
    vit: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(slower=1.05)
    monkeypatch.setattr(merges, "measure_latency", clock)
    found = md.calibrate_merges(vit, photos, budget_ms=80, threads=1, tries=0)
    assert clock.alone == 2 and found.timing is not None and found.timing.chosen <= 80
    monkeypatch.setattr(merges, "measure_latency", Clock(slower=3.0))
    with pytest.raises(md.PlanError, match=r"no schedule was found that takes 80 ms; the last one took"):
        md.calibrate_merges(vit, photos, budget_ms=80, threads=1, tries=0)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({}, "give one of budget_macs and budget_ms"),
        ({"budget_macs": "0.8x", "budget_ms": 3}, "give one of budget_macs and budget_ms"),
        ({"budget_macs": "0.8x", "threads": 2}, "threads: got 2 with budget_macs"),
        ({"budget_ms": 0}, "budget_ms: got 0, expected a number above 0"),
        ({"budget_ms": float("nan")}, "budget_ms: got nan"),
        ({"budget_ms": 1, "threads": 1}, "budget_ms: got 1, expected .* to 100 ms"),
        ({"budget_ms": 100, "threads": 1}, "budget_ms: got 100, expected"),
    ],
    ids=str,
)
def test_budgets_that_are_refused(
    vit: Path, photos: Path, budgets: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "measure_latency", Clock())
    with pytest.raises(md.PlanError, match=message):
        md.calibrate_merges(vit, photos, **budgets)


def test_graphs_of_every_schedule_run(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BLOCKS": 2, "RUNS": 1, "WARMUP": 0}.items():
        monkeypatch.setattr(merge_latency, name, value)
    told: list[float] = []
    schedule = MergeSchedule(merges=(2, 0, 1), proportional=True)
    model = md.load_checkpoint(vit)
    found = merge_latency.measure_latency(model, [schedule, None], threads=1, progress=told.append)
    assert len(found) == 2 and min(found) > 0 and told == sorted(told) and told[-1] == 1.0


@pytest.mark.parametrize(
    ("budget", "message"), [("0.1x", "expected .* MACs, or 0.* to 1x"), ("fast", "got 'fast'")]
)
def test_bad_budgets(vit: Path, photos: Path, budget: str, message: str) -> None:
    with pytest.raises(md.PlanError, match=message):
        md.calibrate_merges(vit, photos, budget)


def test_another_model(photos: Path, tmp_path: Path) -> None:
    md.save_checkpoint(random_model(make_config()), tmp_path / "routed")
    with pytest.raises(md.ConfigError, match="expected a plain ViT"):
        md.calibrate_merges(tmp_path / "routed", photos, "0.8x")


def test_a_negative_number_of_tries(vit: Path, photos: Path) -> None:
    with pytest.raises(md.PlanError, match="tries: got -1"):
        md.calibrate_merges(vit, photos, "0.8x", tries=-1)
