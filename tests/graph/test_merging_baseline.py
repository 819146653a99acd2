"""Merging as it would be exported without this tool computes the same logits; masking cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from merged_models import MERGED, merged_config, merged_named
from tiny_models import EXACT, normalised, own_bucket, random_model, random_pixels

from morvit_deploy.errors import TargetError
from morvit_deploy.graph.baselines import build_graph
from morvit_deploy.graph.style.styles import Options, style_for_batch


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("changes", MERGED, ids=merged_named)
def test_gather_scatter(changes: dict[str, Any], batch: int) -> None:
    config = merged_config(**changes)
    model, pixels = random_model(config, 0, torch.float64), random_pixels(config, batch)
    graph = build_graph("gather_scatter", model, own_bucket(config), Options(style=style_for_batch(batch)))
    assert not graph.options.cls_only
    answer = graph(torch.from_numpy(pixels))["logits"]
    assert (answer - model(normalised(config, pixels)).logits).abs().max() <= EXACT


def test_masking_is_refused() -> None:
    config = merged_config()
    with pytest.raises(TargetError, match=r"mean of several, .*; use form 'gather_scatter'"):
        build_graph("masked", random_model(config), own_bucket(config), Options())


def test_depth_is_refused() -> None:
    config = merged_config()
    with pytest.raises(TargetError, match="depth output, expected none"):
        build_graph("gather_scatter", random_model(config), own_bucket(config), Options(with_depth=True))
