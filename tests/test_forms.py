"""The forms for Core ML, both layouts and both ways to select, in float64 against the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from combos import EVERY, OPTIONS, named
from conftest import EXACT, make_config, normalised, own_bucket, random_model, random_pixels
from torch import Tensor

from morvit_deploy.coreml import LAYOUTS, SELECTS, Layout, Select
from morvit_deploy.options import coreml_options
from morvit_deploy.unroll import unroll

FORMS = [(layout, select) for layout in LAYOUTS for select in SELECTS]


def as_image(pixels: Any) -> Tensor:
    """Pixels (1, height, width, 3) as an ImageType with scale 1/256 hands them over."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 256


@pytest.mark.parametrize("port", ["uint8", "float"])
@pytest.mark.parametrize(("layout", "select"), FORMS)
@pytest.mark.parametrize("changes", [*EVERY, *OPTIONS], ids=named)
def test_equals_the_reference(changes: dict[str, Any], layout: Layout, select: Select, port: str) -> None:
    config = make_config(**changes)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 1)
    normal = normalised(config, pixels)
    outcome = model(normal)
    graph = unroll(model, own_bucket(config), coreml_options(port, layout, select, with_depth=True))
    answer = graph(as_image(pixels) if port == "uint8" else normal)
    assert answer["logits"].shape == outcome.logits.shape
    assert (answer["logits"] - outcome.logits).abs().max() <= EXACT * max(1, outcome.logits.abs().max())
    assert answer["depth"].tolist() == outcome.depth.tolist()
