"""Following tokens: the first stage to diverge is found on either side of either gap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_config, normalised, own_bucket, random_model, random_pixels

from morvit_deploy.ends import Options
from morvit_deploy.unroll import unroll
from morvit_deploy.walk import Walk

CONFIGS: dict[str, dict[str, Any]] = {
    "middle_cycle": {},
    "cycle": {"sharing": "cycle"},
    "all": {"attention_scope": "all", "gate": "delta"},
    "token_choice": {"routing": "token_choice", "gate": "hard", "attention_scope": "all", "capacity": None},
    "none": {"routing": "none", "gate": "hard", "capacity": None, "router": None},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_reference_and_graph_do_not_diverge_until_one_is_changed(name: str) -> None:
    config = make_config(**CONFIGS[name])
    model = random_model(config, dtype=torch.float64)
    pixels = random_pixels(config, 3)
    graph = unroll(model, own_bucket(config), Options(single=False))
    walk = Walk(config, own_bucket(config).capacity)
    reference = walk.stages_of_reference(model(normalised(config, pixels)))
    static = walk.stages_of({k: v.numpy() for k, v in graph(torch.from_numpy(pixels)).items()})
    clear = np.array([True, False, True])
    assert walk.first_divergence(reference, static, clear, before=8) is None
    shared = [stage for stage in reference if stage in static]
    assert len(shared) >= 3, shared
    changed = {**static, shared[1]: static[shared[1]].copy()}
    changed[shared[1]][2] += 1
    told = walk.first_divergence(reference, changed, clear, before=8)
    assert told is not None and told.startswith(shared[1]) and "image 10" in told
    changed[shared[1]][2] -= 1
    changed[shared[1]][1] += 1  # an image that is not judged
    assert walk.first_divergence(reference, changed, clear, before=8) is None
