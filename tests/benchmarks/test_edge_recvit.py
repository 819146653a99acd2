"""What the Edge-RecViT benchmark stands on: a router of a known mean depth, and the dense form in eager words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from places import BENCHMARKS
from tiny_models import EXACT, make_config, normalised, random_model, random_pixels

from morvit_deploy.errors import ConfigError, ParityError
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.onnx.graphs.macs import count_macs
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.model.checkpoint import init_model, save_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import dense_macs

NEAR = 0.05  # layers
ROUTER = {"hidden": [24, 20], "bias": False}


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks are scripts, not a package."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def edge(**changes: Any) -> Config:
    """A small relative of `edge_recvit_b16`: seven layers, a router of two hidden layers without biases."""
    return make_config(routing="token_choice", num_recursions=5, router=ROUTER, **changes)


@pytest.mark.parametrize("mean", [1, 1.5, 3, 4.5, 6, 7])
def test_depths_have_the_mean_that_was_asked_for(mean: float) -> None:
    from depth_router import depths, set_depths

    config = edge()
    model = init_model(config)
    images = normalised(config, random_pixels(config, 48)).float()
    reached = set_depths(model, images, mean, spread=1.5)
    found = model(images).depth.double()
    assert reached == pytest.approx(mean, abs=NEAR)
    assert found.mean().item() == pytest.approx(reached, abs=1e-9)
    assert depths(model, images).tolist() == found.tolist()
    assert found.min() >= 1 and found.max() <= config.num_layers


def test_depths_spread_and_differ_between_images() -> None:
    from depth_router import set_depths

    config = edge()
    model = init_model(config)
    images = normalised(config, random_pixels(config, 48)).float()
    set_depths(model, images, 4, spread=1.5)
    depth = model(images).depth
    assert depth.unique().tolist() == list(range(1, 8))
    assert 1.2 < depth.double().std() < 1.6  # clipping takes a little
    assert depth.double().mean(dim=1).std() > 0.1
    assert len({tuple(one) for one in depth.tolist()}) == len(depth)


def test_a_mean_that_no_depths_have_is_refused() -> None:
    from depth_router import set_depths

    config = edge()
    images = normalised(config, random_pixels(config, 2)).float()
    for mean in (0.9, 7.1):
        with pytest.raises(ConfigError, match=f"got {mean}, expected a depth from 1 to 7"):
            set_depths(init_model(config), images, mean)


@pytest.mark.parametrize(
    "changes", [{}, {"sharing": "cycle"}, {"cycle_depth": 2}, {"qkv_bias": False}], ids=str
)
def test_the_eager_form_is_the_reference(changes: dict[str, Any]) -> None:
    from eager_edge import EagerEdgeRecViT

    config = edge(**changes)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 3)
    answer = EagerEdgeRecViT(model)(torch.from_numpy(pixels))
    assert (answer - model(normalised(config, pixels)).logits).abs().max() <= EXACT


def test_both_dense_forms_do_every_layer_for_every_token(tmp_path: Path) -> None:
    """MACs of the written graphs are those of full layers, with the router on all tokens: nothing is left out."""
    from eager_edge import export_eager, write_eager

    config = edge()
    model, pixels = random_model(config), random_pixels(config, 4)
    save_checkpoint(model, tmp_path / "checkpoint")
    masked = export(tmp_path / "checkpoint", tmp_path / "masked", form="masked").manifest
    assert list(masked.macs.values()) == [dense_macs(config)]
    assert masked.structure["block_applications"] == {"first": 1, "cycle.0": 5, "last": 1}
    assert count_macs(export_eager(model)) == dense_macs(config)
    write_eager(model, tmp_path / "eager", masked, pixels)
    with open_bundle(tmp_path / "eager") as eager, open_bundle(tmp_path / "masked") as ours:
        assert list(eager.manifest.macs.values()) == [dense_macs(config)]
        assert abs(eager.logits(pixels) - ours.logits(pixels)).max() < 1e-4  # float32


def test_an_eager_export_of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import eager_edge

    config = edge()
    model, other = random_model(config), eager_edge.export_eager(random_model(config, seed=1))
    save_checkpoint(model, tmp_path / "checkpoint")
    masked = export(tmp_path / "checkpoint", tmp_path / "masked", form="masked").manifest
    monkeypatch.setattr(eager_edge, "export_eager", lambda _model: other)
    with pytest.raises(ParityError, match="from the reference"):
        eager_edge.write_eager(model, tmp_path / "eager", masked, random_pixels(config, 2))
