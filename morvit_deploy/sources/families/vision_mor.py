"""Vision-MoR (github.com/Ghostfreak-077/Vision-MoR): expert choice with first, shared and last blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.model.config import GROWN
from morvit_deploy.sources.families.classifier import settle_head_activation
from morvit_deploy.sources.families.family import Draft, Family
from morvit_deploy.sources.families.layers import count_of
from morvit_deploy.sources.families.settling import (
    need,
    patches_in,
    settle_heads,
    settle_positions,
    settle_preprocess,
    width_fields,
)
from morvit_deploy.sources.settings.given import Questions, option
from morvit_deploy.sources.tensors.keymap import COPIED, KIND, LAYER, copy
from morvit_deploy.sources.tensors.reading import Contents

FACTORS = "capacity_factors"


class VisionMoR(Family):
    """Each step's router ranks tokens, and the shared blocks run on the best; `capacity_factors` give their number.

    The original code ranks all tokens at every step, including CLS, and replaces the selected ones by the blocks'
    output: selection "flat", gate "hard". Forks that select among the remaining patches are selection "nested".
    """

    name = "vision_mor"
    title = "a Vision-MoR checkpoint"
    signature = (
        r"first_block\.attn\.qkv\.weight",
        r"(shared_blocks\.\d+|shared_layer)\.",
        r"routers\.\d+\.router\.weight",
    )
    rules = (
        copy(rf"patch_embed\.proj\.{KIND}", r"patch_embed.proj.\g<kind>"),
        copy(r"cls_token", "cls_token"),
        copy(r"pos_embed", "pos_embed"),
        copy(rf"first_block\.(?:block\.)?{LAYER}\.{KIND}", r"first.\g<rest>.\g<kind>"),
        copy(rf"last_block\.(?:block\.)?{LAYER}\.{KIND}", r"last.\g<rest>.\g<kind>"),
        copy(rf"shared_blocks\.(?P<i>\d+)\.(?:block\.)?{LAYER}\.{KIND}", r"cycle.\g<i>.\g<rest>.\g<kind>"),
        copy(rf"shared_layer\.(?:block\.)?{LAYER}\.{KIND}", r"cycle.0.\g<rest>.\g<kind>"),
        copy(rf"routers\.(?P<r>\d+)\.router\.{KIND}", r"routers.\g<r>.0.\g<kind>"),
        copy(rf"norm\.{KIND}", r"norm.\g<kind>"),
        copy(rf"head\.{KIND}", r"head.\g<kind>"),
        copy(FACTORS, FACTORS),
    )
    recipes = (COPIED,)

    def draft(self, contents: Contents, questions: Questions) -> Draft:
        tensors, rows = self.built(contents)
        need(
            tensors,
            contents,
            self.title,
            "patch_embed.proj.weight",
            "cls_token",
            "pos_embed",
            "first.mlp.fc1.weight",
            "norm.weight",
            "head.weight",
        )
        factors = tensors.pop(FACTORS, None)
        draft = Draft(width_fields(tensors, "first"), tensors, rows, [_NO_KV_SHARING, _SATURATES])
        settle_positions(draft, questions, sizes=contents.arguments.image_sizes())
        fields, steps = draft.fields, count_of(tensors, "routers")
        fields |= {
            "num_heads": _heads(questions, fields["embed_dim"]),
            "norm_eps": questions.settle("norm_eps", published="1e-5", usual=1e-5),
            "activation": questions.settle("activation", published="gelu", usual="gelu"),
            "head_activation": settle_head_activation(questions, fields["num_classes"]),
            "sharing": "middle_cycle",
            "cycle_depth": count_of(tensors, "cycle"),
            "num_recursions": steps,
            "head_hidden": [],
            "labels": None,
        }
        fields |= self._routing(contents, questions, factors, patches_in(fields), steps)
        settle_preprocess(
            fields,
            questions,
            published="32×32 CIFAR-10 images without resizing: a JSON file with mean 0.4914, 0.4822, 0.4465, std "
            "0.2023, 0.1994, 0.2010, resize null",
            example="FILE.json",
        )
        draft.tied = f"the shared blocks are stored once and applied {steps} times"
        return draft

    def _routing(
        self, contents: Contents, questions: Questions, factors: Tensor | None, patches: int, steps: int
    ) -> dict[str, Any]:
        """Return the fields routing, router, gate, attention_scope and capacity."""
        selection = questions.settle("selection", published="flat")
        gate = questions.settle("gate", published="hard")
        alpha = 1.0  # a hard gate has no score
        if gate in ("block", "delta"):
            alpha = questions.settle("alpha", published="1, the score is the sigmoid", example="1")
        ranked = patches if selection == "nested" else patches + 1  # CLS is ranked too
        own = None if factors is None else capacities(factors, ranked)
        capacity = questions.settle(
            "capacity",
            stored=own,
            origin=f"the tensors, {FACTORS}",
            published="1 − r/R of all tokens at step r = 0, 1, …",
            example=",".join(str(max(1, int(ranked * (1 - r / steps)))) for r in range(steps)),
        )
        if capacity is not None and len(capacity) != steps:
            raise CheckpointError(
                f"{contents.path}: got {len(capacity)} capacities, expected one for each of {steps} routers "
                f"({option('capacity')})"
            )
        return {
            "routing": "expert_choice_flat" if selection == "flat" else "expert_choice",
            "router": {"hidden": [], "activation": "sigmoid", "bias": True, "shared": False, "alpha": alpha},
            "gate": gate,
            "attention_scope": "active",
            "capacity": capacity and list(capacity),
        }


_NO_KV_SHARING = (
    "converted with the default use_kv_sharing=False; if it was trained with True, which the files do not record and "
    f"{GROWN} does not support, its logits differ"
)
_SATURATES = (
    "tokens are ranked by router logits; the original code ranks their sigmoids in float32, which are all 1.0 for "
    "logits above 17, so ties are resolved arbitrarily"
)


def capacities(factors: Tensor, tokens: int) -> tuple[int, ...]:
    """Return max(1, int(tokens · factor)), in float32 like the original code: 65 · 0.6667 is 43."""
    return tuple(max(1, int(tokens * factor)) for factor in factors.to(torch.float32))


def _heads(questions: Questions, dim: int) -> Any:
    """The original constructor has 8 heads at width 256; wider models follow ViT."""
    if dim == 256:
        return questions.settle("num_heads", published="8 at width 256", example="8", usual=8)
    return settle_heads(questions, None, dim)
