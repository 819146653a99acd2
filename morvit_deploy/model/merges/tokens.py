"""From a plain ViT to the same weights with tokens that merge: no training, no copy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from morvit_deploy.errors import ConfigError
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.model.merges.schedules import (
    MergeSchedule,
    as_text,
    check_plain,
    merged_config,
    typed_schedule,
)
from morvit_deploy.model.reference import MoRViT


@checks_keywords()
def merge_tokens(
    model: MoRViT,
    merge: int | Sequence[int] | str | Path | None = None,
    *,
    merge_to: float | None = None,
    proportional_attention: bool = False,
) -> MoRViT:
    """Return a plain ViT with token merging (ToMe), which needs no training. It shares the weights of `model`.

    `merge` is the number of tokens that merge at each layer but the last, a number for each of these layers, or a
    file of `calibrate`; `merge_to` is the share of the tokens that is left at the end. With `proportional_attention`,
    attention to a merged token counts as attention to all tokens in it.

    Raises ConfigError for a model that is no plain ViT, and for more merges than there can be.

    >>> merged = md.merge_tokens(md.load_checkpoint("vit"), 8)
    >>> md.save_checkpoint(merged, "vit-merged")
    """
    if (merge is None) == (merge_to is None):
        raise ConfigError(
            "merge_tokens: give one of merge, the tokens of each layer, and merge_to, the share left"
        )
    check_plain(model.config)
    text = None if merge is None else as_text(merge)
    return with_schedule(model, typed_schedule(model.config, text, merge_to, proportional_attention))


def with_schedule(model: MoRViT, schedule: MergeSchedule) -> MoRViT:
    """Return a plain ViT with these merges; it shares the weights of `model`."""
    merged = copy.copy(model)
    merged.config = merged_config(model.config, schedule)
    return merged
