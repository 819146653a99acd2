"""Table 4's models: what is left out of the preset, and the graph whose steps have weights of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_models import make_fields

from morvit_deploy.errors import ParityError
from morvit_deploy.measuring.compare.baselines import exporting
from morvit_deploy.measuring.compare.baselines.ablation import ABLATIONS, ablated, untie
from morvit_deploy.measuring.compare.baselines.exporting import exported, noise
from morvit_deploy.measuring.compare.baselines.graph_facts import graph_facts
from morvit_deploy.measuring.compare.baselines.names import Baseline, find_baselines
from morvit_deploy.measuring.compare.baselines.published import REFERENCE, UNROUTED, UNTIED, of_baseline
from morvit_deploy.model.presets import PRESETS, preset


def test_table4_is_the_papers_ablation() -> None:
    found = find_baselines(["table4"], lambda: [REFERENCE])
    assert [(one.name, one.kind) for one in found] == [
        (UNROUTED, "ablation"),
        (UNTIED, "ablation"),
        (REFERENCE, "timm"),
    ]
    published = [of_baseline(one.name) for one in found]
    assert [one and (one.top1_percent, one.images_per_s) for one in published] == [
        (82.3, 1770),
        (82.7, 950),
        (81.8, 900),
    ]
    assert [one and one.source.split(":")[0] for one in published[:2]] == ["MoR-ViT (2025), Table 4"] * 2


def test_what_is_left_out() -> None:
    ours = preset("morvit_b16")
    unrouted, untied = map(ablated, ABLATIONS)
    assert unrouted.capacity is None and unrouted.sharing == ours.sharing
    assert unrouted.num_recursions == ours.num_recursions
    assert untied == ours, "its graph is changed, not its configuration"


def test_steps_with_weights_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "morvit_b16", make_fields())
    steps = preset("morvit_b16").num_recursions
    ours, untied = (exported(Baseline(name, kind), 0, tmp_path) for name, kind in (
        ("morvit_b16", "preset"), (UNTIED, "ablation"),
    ))  # fmt: skip  # type: ignore[arg-type]
    model = onnx.load(ours.graph)
    shared = sum(np.prod(one.dims) for one in model.graph.initializer if one.name.startswith("cycle."))
    assert untied.parameters - ours.parameters == (steps - 1) * shared
    assert graph_facts(untied.graph).macs == graph_facts(ours.graph).macs
    assert untied.graph.stat().st_size > ours.graph.stat().st_size + 4 * (steps - 1) * shared
    pictures = np.split(noise(2, ours.size), 2)
    assert np.array_equal(exporting._logits(ours.graph, pictures), exporting._logits(untied.graph, pictures))


def test_a_graph_that_returns_other_logits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: onnx.ModelProto) -> int:
        added = untie(model)
        copy = next(one for one in model.graph.initializer if one.name.endswith("fc1.weight.step1"))
        copy.raw_data = bytes(len(copy.raw_data))
        return added

    monkeypatch.setitem(PRESETS, "morvit_b16", make_fields())
    monkeypatch.setattr(exporting, "untie", wrong)
    with pytest.raises(ParityError, match="the graph returns other logits"):
        exported(Baseline(UNTIED, "ablation"), 0, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_every_token_runs_without_a_router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "morvit_b16", make_fields())
    unrouted = exported(Baseline(UNROUTED, "ablation"), 0, tmp_path)
    ours = exported(Baseline("morvit_b16", "preset"), 0, tmp_path)
    assert unrouted.parameters < ours.parameters, "no routers"
    assert (graph_facts(unrouted.graph).macs or 0) > (graph_facts(ours.graph).macs or 0)
