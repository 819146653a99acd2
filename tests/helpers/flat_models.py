"""A model of flat expert choice whose routers are set so that CLS, and some patches, sit a step out and come back."""

from __future__ import annotations

import torch
from tiny_models import make_config, normalised, random_model, random_pixels

from morvit_deploy.model.config import Config
from morvit_deploy.model.reference import MoRViT

CLS_RUNS = (True, False, True)  # each of the three steps


def wandering_config() -> Config:
    return make_config(routing="expert_choice_flat", cycle_depth=2)


def wandering_model(dtype: torch.dtype = torch.float32) -> MoRViT:
    """Each step's router looks along the line from the patches' mean state to CLS's, one way or the other."""
    model = random_model(wandering_config(), dtype=torch.float64)
    images = normalised(model.config, random_pixels(model.config, 8, seed=5))
    for step, runs in enumerate(CLS_RUNS):  # what a step meets does not depend on its own router
        before = "first" if step == 0 else f"step{step}"
        h = torch.stack([trace.states[before] for trace in model(images).traces]).mean(dim=0)  # (N+1, dim)
        line = h[0] - h[1:].mean(dim=0)
        router = model.router(step).linears()[0]
        router.weight.copy_((1.0 if runs else -1.0) * line / line.norm())
    return model.to(dtype)
