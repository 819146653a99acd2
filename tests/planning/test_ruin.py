"""A plan that ruins the model: refused by `calibrate` and by `export`, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calibration_setup import save_model, save_pictures

from morvit_deploy.calibration.routing import sequence
from morvit_deploy.errors import AccuracyError
from morvit_deploy.exporters.api import export
from morvit_deploy.planning.rounds import Calibrated, calibrate

RUINOUS: dict[str, Any] = {"mode": "threshold", "scale": 0.5, "buckets": 1}


@pytest.fixture(scope="module", autouse=True)
def two_scales() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence, "SCALES", (0.5, 1.0))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("ruin") / "model", seed=1, dead=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pictures(tmp_path_factory.mktemp("ruin") / "images")


@pytest.fixture(scope="module")
def ruinous(model: Path, images: Path) -> Calibrated:
    return calibrate(model, images, **RUINOUS, allow_worse=True)


def test_calibrate_names_a_plan_that_keeps_the_model(model: Path, images: Path, ruinous: Calibrated) -> None:
    with pytest.raises(
        AccuracyError, match=r"28.57 % .* expected at least 90.00 %. Recommended instead: top-k"
    ):
        calibrate(model, images, **RUINOUS)
    assert ruinous.remarks[-1].startswith("let through by --allow-worse: top-1 agreement")
    assert ruinous.chosen is not ruinous.recommended


def test_export_reads_the_plans_record_before_any_work(
    model: Path, ruinous: Calibrated, tmp_path: Path
) -> None:
    stages: list[str] = []
    with pytest.raises(AccuracyError, match="Run `morvit-deploy calibrate` for another plan"):
        export(model, tmp_path / "bundle", plan=ruinous.plan, tell=stages.append)
    assert stages == ["loading the checkpoint"] and list(tmp_path.iterdir()) == []


def test_export_measures_a_plan_without_a_record(
    model: Path, images: Path, ruinous: Calibrated, tmp_path: Path
) -> None:
    plan = ruinous.plan.model_copy(update={"calibration": None})
    with pytest.raises(AccuracyError, match=r"top-1 agreement with the trained model is 28.57 %"):
        export(model, tmp_path / "bundle", plan=plan, images=images)
    assert list(tmp_path.iterdir()) == []
    bundle = export(model, tmp_path / "bundle", plan=plan, images=images, allow_worse=True)
    assert any("let through by --allow-worse: top-1 agreement" in remark for remark in bundle.warnings)


def test_a_record_of_another_plan_does_not_help(
    model: Path, images: Path, ruinous: Calibrated, tmp_path: Path
) -> None:
    """Thresholds that were edited after calibration: the record says 99 %, the images say 28 %."""
    record = {"images": 200, "top1_agreement": 0.99, "top1": None, "trained_top1": None}
    plan = ruinous.plan.model_copy(update={"calibration": record})
    with pytest.raises(AccuracyError, match=r"28.57 % .* expected at least 89.10 %"):
        export(model, tmp_path / "bundle", plan=plan, images=images)


def test_low_agreement_is_no_ruin_where_labels_have_decided(
    model: Path, images: Path, ruinous: Calibrated, tmp_path: Path
) -> None:
    record = {"images": 200, "top1_agreement": 0.28, "top1": 0.52, "trained_top1": 0.52}
    plan = ruinous.plan.model_copy(update={"calibration": record})
    assert export(model, tmp_path / "bundle", plan=plan, images=images).remarks == ()


def test_synthetic_pictures_ruin_nothing(model: Path, ruinous: Calibrated, tmp_path: Path) -> None:
    plan = ruinous.plan.model_copy(update={"calibration": None})
    assert export(model, tmp_path / "bundle", plan=plan).verification.passed
