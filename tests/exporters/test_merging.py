"""Bundles whose tokens merge: proved, verified, and the options that ask for merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from merged_models import merged_config
from tiny_models import make_config, random_model

import morvit_deploy as md
from morvit_deploy.exporters.request import Request

CHANGES = {"reduction": {"layers": [0, 1, 2], "proportional": True}}


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged") / "merged"
    md.save_checkpoint(random_model(merged_config(**CHANGES)), folder)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit") / "vit"
    md.save_checkpoint(random_model(make_config(routing="none", sharing="none", cycle_depth=4)), folder)
    return folder


@pytest.mark.parametrize(
    "how",
    [
        {"with_depth": True},
        {"batch": "dynamic", "with_depth": True},
        {"input": "float"},
        {"precision": "fp16"},
    ],
    ids=str,
)
def test_onnx(merged: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    exported = md.export(merged, tmp_path / "out", **how)
    assert exported.verification.passed
    assert exported.verification.router_agreement == [1.0, 1.0, 1.0]
    assert not {"ScatterElements", "ScatterND"} & set(exported.manifest.structure["operators"])


def test_the_form_to_measure_against_scatters(merged: Path, tmp_path: Path) -> None:
    exported = md.export(merged, tmp_path / "out", form="gather_scatter")
    assert exported.verification.passed
    assert "ScatterElements" in exported.manifest.structure["operators"]


def test_masking_is_refused(merged: Path, tmp_path: Path) -> None:
    with pytest.raises(md.TargetError, match="use form 'gather_scatter'"):
        md.export(merged, tmp_path / "out", form="masked")


@pytest.mark.slow
@pytest.mark.parametrize("select", ["topk", "onehot"])
@pytest.mark.parametrize("layout", ["bsd", "bc1s"])
def test_coreml(merged: Path, tmp_path: Path, layout: Any, select: Any) -> None:
    how = {"layout": layout, "select": select, "with_depth": True, "precision": "fp32"}
    exported = md.export(merged, tmp_path / "out", target="coreml", **how)
    assert exported.verification.passed and exported.verification.router_agreement == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("given", "capacity"),
    [
        ({"merge": 2}, (14, 12, 10)),
        ({"merge": [3, 0, 1]}, (13, 12)),
        ({"merge": "3,0,1", "proportional_attention": True}, (13, 12)),
        ({"merge_to": 0.5}, (13, 10, 7)),
    ],
    ids=str,
)
def test_merges_of_a_plain_vit(
    vit: Path, tmp_path: Path, given: dict[str, Any], capacity: tuple[int, ...]
) -> None:
    manifest = md.export(vit, tmp_path / "out", **given).manifest
    assert manifest.config.capacity == capacity and manifest.config.reduction is not None
    assert manifest.config.reduction.proportional == given.get("proportional_attention", False)
    assert md.verify(tmp_path / "out", vit).passed


def test_a_bundle_of_another_vit_is_not_verified(vit: Path, tmp_path: Path) -> None:
    md.export(vit, tmp_path / "out", merge=2)
    for changes in ({"cycle_depth": 5}, {"num_heads": 4}):
        other = make_config(**({"routing": "none", "sharing": "none", "cycle_depth": 4} | changes))
        md.save_checkpoint(random_model(other), tmp_path / "other", force=True)
        with pytest.raises(md.BundleError, match="was made from another model"):
            md.verify(tmp_path / "out", tmp_path / "other")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"merge": "2", "merge_to": 0.5}, "merge_to: got it beside merge"),
        ({"merge": "2", "plan": Path("plan.json")}, "merge: got it with a plan"),
        ({"proportional_attention": True}, "no tokens merge; give merge or merge_to"),
    ],
)
def test_options_that_exclude_one_another(given: dict[str, Any], message: str) -> None:
    with pytest.raises(md.ConfigError, match=message):
        Request(Path("vit"), Path("out"), **given)


def test_merges_of_a_routed_model_are_refused(merged: Path, tmp_path: Path) -> None:
    with pytest.raises(md.ConfigError, match="routing 'merged', expected a plain ViT"):
        md.export(merged, tmp_path / "out", merge=1)
    assert not (tmp_path / "out").exists()
