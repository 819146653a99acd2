"""Plain ViTs that drop tokens between layers: EViT, whose tensors are DeiT's, and DynamicViT with its predictors."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from morvit_deploy.errors import CheckpointError
from morvit_deploy.model.config import GROWN
from morvit_deploy.sources.families.family import Draft
from morvit_deploy.sources.families.layers import count_of
from morvit_deploy.sources.families.timm_vit import TimmViT
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.keymap import KIND, copy
from morvit_deploy.sources.tensors.reading import Contents

PUBLISHED_LAYERS = (3, 6, 9)  # of both, counted from 0


class EViT(TimmViT):
    """EViT (github.com/youweiliang/evit): the attention of CLS selects; those that leave may be fused into a token.

    The names are DeiT's, so it is detected from the arguments in the file, or chosen with `--family evit`.
    """

    name = "evit"
    title = "an EViT"
    method = "EViT"
    named = False

    def draft(self, contents: Contents, questions: Questions) -> Draft:
        draft = super().draft(contents, questions)
        rate = _rate(contents, questions, "base_keep_rate", "0.5 to 0.9")
        layers = _layers(contents, questions, draft)
        stored, origin = contents.arguments.find("fuse_token")
        if stored not in (None, True, False):
            raise CheckpointError(f"{contents.path}: got {stored!r} ({origin}), expected true or false")
        dropped = questions.settle(
            "dropped",
            stored=None if stored is None else ("fused" if stored else "gone"),
            origin=origin,
            published="fused or gone, two kinds of checkpoints",
            example="FUSED_OR_GONE",
        )
        if rate is not None and layers is not None and dropped is not None:
            fuse = dropped == "fused"
            kept = kept_by_evit(rate, _patches(draft), len(layers), fuse=fuse)
            draft.fields |= _fields("attentive", kept, layers) | {
                "reduction": {"layers": layers, "fuse": fuse}
            }
        return draft


class DynamicViT(TimmViT):
    """DynamicViT on DeiT (github.com/raoyongming/DynamicViT): a predictor before some layers selects tokens."""

    name = "dynamic_vit"
    title = "a DynamicViT"
    method = "DynamicViT"
    signature = (*TimmViT.signature, r"score_predictor\.0\.in_conv\.0\.weight")
    rules = (
        copy(rf"score_predictor\.(?P<r>\d+)\.in_conv\.0\.{KIND}", r"routers.\g<r>.norm.\g<kind>"),
        copy(rf"score_predictor\.(?P<r>\d+)\.in_conv\.1\.{KIND}", r"routers.\g<r>.embed.\g<kind>"),
        *(
            copy(
                rf"score_predictor\.(?P<r>\d+)\.out_conv\.{place}\.{KIND}",
                rf"routers.\g<r>.layers.{number}.\g<kind>",
            )
            for number, place in enumerate((0, 2, 4))
        ),
        *TimmViT.rules,
    )

    def draft(self, contents: Contents, questions: Questions) -> Draft:
        draft = super().draft(contents, questions)
        steps = count_of(draft.tensors, "routers")
        rate = _rate(contents, questions, "base_rate", "0.5 to 0.9")
        layers = _layers(contents, questions, draft)
        if layers is not None and len(layers) != steps:
            raise CheckpointError(
                f"{contents.path}: got {len(layers)} layers, expected one for each of {steps} predictors"
            )
        if rate is not None and layers is not None:
            kept = kept_by_dynamic_vit(rate, _patches(draft), steps)
            draft.fields |= _fields("predicted", kept, layers) | {"reduction": {"layers": layers}}
        return draft


REDUCING = (EViT(), DynamicViT())
_LAYERS = re.compile(r"[\[(]?\s*\d{1,4}(\s*,\s*\d{1,4})*\s*,?\s*[\])]?")


def kept_by_evit(rate: float, patches: int, steps: int, *, fuse: bool) -> tuple[int, ...]:
    """Return how many tokens go on at each step: ceil(rate · n), where n are all but CLS, fused ones included."""
    kept, candidates = [], patches
    for _ in range(steps):
        kept.append(math.ceil(rate * candidates))
        candidates = kept[-1] + (fuse and kept[-1] < candidates)
    return tuple(kept)


def kept_by_dynamic_vit(rate: float, patches: int, steps: int) -> tuple[int, ...]:
    """Return how many patch tokens go on at each step r = 1, 2, …: int(N · rate^r)."""
    return tuple(int(patches * rate**step) for step in range(1, steps + 1))


def _rate(contents: Contents, questions: Questions, argument: str, published: str) -> Any:
    """Settle the fraction of tokens that go on, which no tensor holds; CheckpointError if it is not one."""
    stored, origin = contents.arguments.find(argument)
    rate = questions.settle("keep_rate", stored=stored, origin=origin, published=published, example="RATE")
    if rate is not None and not (isinstance(rate, int | float) and 0 < rate <= 1):
        raise CheckpointError(
            f"{contents.path}: got the keep rate {rate!r} ({questions.settled['keep_rate'].origin}), "
            "expected a number above 0 and at most 1"
        )
    return rate


def _layers(contents: Contents, questions: Questions, draft: Draft) -> list[int] | None:
    """Settle at which layers tokens leave; EViT's arguments hold them as text."""
    if draft.fields["sharing"] != "none":
        raise CheckpointError(
            f"{contents.path}: {draft.tied}; a model that drops tokens has layers of its own"
        )
    stored, origin = contents.arguments.find("drop_loc")
    layers: Sequence[int] | None = questions.settle(
        "drop_layers",
        stored=None if stored is None else _listed_layers(contents, stored, origin),
        origin=origin,
        published=", ".join(map(str, PUBLISHED_LAYERS)) + ", counted from 0",
        example=",".join(map(str, PUBLISHED_LAYERS)),
        usual=PUBLISHED_LAYERS,
    )
    return None if layers is None else list(layers)


def _listed_layers(contents: Contents, stored: object, origin: str) -> tuple[int, ...]:
    """Return the numbers of a list, or of its text as in "(3, 6, 9)"; CheckpointError for anything else."""
    if not _LAYERS.fullmatch(str(stored)):
        raise CheckpointError(
            f"{contents.path}: got {str(stored)[:40]!r} ({origin}), expected one or more layers as in (3, 6, 9)"
        )
    return tuple(int(number) for number in re.findall(r"\d+", str(stored)))


def _fields(routing: str, kept: Sequence[int], layers: Sequence[int]) -> dict[str, Any]:
    """Return the fields of a shortened ViT; CheckpointError if a step keeps no token."""
    if min(kept) < 1:
        empty = list(kept).index(0)
        raise CheckpointError(
            f"the keep rate leaves {', '.join(map(str, kept))} patch tokens after layers "
            f"{', '.join(map(str, layers))}: none after layer {layers[empty]}, expected at least 1"
        )
    return {"format": GROWN, "routing": routing, "capacity": list(kept)}


def _patches(draft: Draft) -> int:
    return int(draft.fields["image_size"] // draft.fields["patch_size"]) ** 2
