"""`md.merge_tokens`: the same weights, with tokens that merge."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_config, normalised, random_model, random_pixels

import morvit_deploy as md
from morvit_deploy.model.reference import MoRViT


@pytest.fixture
def vit() -> MoRViT:
    return random_model(make_config(routing="none", sharing="none", cycle_depth=4))


def test_shares_its_weights_and_leaves_the_model_as_it_was(vit: MoRViT) -> None:
    merged = md.merge_tokens(vit, 2, proportional_attention=True)
    assert vit.config.capacity is None and merged.config.capacity == (14, 12, 10)
    assert merged.patch_embed.proj.weight is vit.patch_embed.proj.weight
    images = normalised(vit.config, random_pixels(vit.config, 2)).float()
    assert not torch.equal(merged(images).logits, vit(images).logits)


def test_takes_a_list_or_a_share(vit: MoRViT) -> None:
    assert md.merge_tokens(vit, [3, 0, 1]).config.capacity == (13, 12)
    assert md.merge_tokens(vit, merge_to=0.5).config.capacity == (13, 10, 7)


def test_takes_one_of_them(vit: MoRViT) -> None:
    for given in ({}, {"merge": 2, "merge_to": 0.5}):
        with pytest.raises(md.ConfigError, match="give one of merge"):
            md.merge_tokens(vit, **given)  # type: ignore[arg-type]


def test_no_merges_at_all_are_the_vit_itself(vit: MoRViT) -> None:
    """Fewer merges change the logits less; one at the last possible layer hardly."""
    images = normalised(vit.config, random_pixels(vit.config, 4)).float()
    unmerged = vit(images).logits
    few, many = (
        (md.merge_tokens(vit, merges)(images).logits - unmerged).abs().mean()
        for merges in ([0, 0, 1], [8, 4, 2])
    )
    assert few < many
