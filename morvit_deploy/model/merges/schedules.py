"""How many tokens of a plain ViT merge at each layer: as typed, spread over the layers, or of a file. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from morvit_deploy.errors import ConfigError
from morvit_deploy.model.config import GROWN, Config, Reduction, checked
from morvit_deploy.model.routings.merged import sides
from morvit_deploy.strict_fields import Strict, explain
from morvit_deploy.strict_json import MAX_DIGITS, parse_json

if TYPE_CHECKING:
    from morvit_deploy.model.routings.record import RoutingRecord

FORMAT = "morvit-merges/1"
MERGED = "merged"


class MergeSchedule(Strict):
    """How many tokens merge at each layer but the last, which the file of `calibrate` holds.

    With `proportional`, attention to a merged token counts as attention to all tokens in it.
    """

    format: Literal["morvit-merges/1"] = "morvit-merges/1"
    merges: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    proportional: bool
    checkpoint: str | None = None  # sha256 of the unmerged ViT
    calibration: dict[str, Any] | None = None

    def to_json(self) -> str:
        """Return the text of a file; `read_schedule` restores an equal object."""
        return self.model_dump_json(indent=2) + "\n"


def most_merges(tokens: int, merges: Sequence[int]) -> list[int]:
    """Return how many of a number of tokens, CLS included, can merge at each layer, after those before it."""
    most = []
    for count in merges:
        most.append(sides(tokens)[0])
        tokens -= count
    return most


def spread(config: Config, total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Return merges for each layer but the last, in proportion to its weight; fewer than `total` if no more can be.

    What a layer cannot merge, others do: the next ones and, if the last ones cannot either, those before it.
    """
    merges: tuple[int, ...] = ()
    for aim in range(total, total + config.num_tokens):
        merges = _toward(config, aim, total, weights)
        if sum(merges) == total:
            break
    return merges


def _toward(config: Config, aim: int, total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Return merges in proportion to an aim, as long as layers can and `total` is not exceeded."""
    merges: list[int] = []
    tokens, reached = config.num_tokens, 0.0
    for weight in weights:
        reached += weight
        wanted = min(total, round(aim * reached / sum(weights))) - sum(merges)
        merges.append(max(0, min(wanted, sides(tokens)[0])))
        tokens -= merges[-1]
    return tuple(merges)


def even(config: Config) -> tuple[float, ...]:
    """Weights of a schedule that merges as many tokens at each layer."""
    return (1.0,) * (config.num_layers - 1)


def decreasing(config: Config) -> tuple[float, ...]:
    """Weights of a schedule that merges more tokens at early layers."""
    return tuple(float(config.num_layers - 1 - layer) for layer in range(config.num_layers - 1))


def earliest(config: Config) -> tuple[float, ...]:
    """Weights of a schedule that merges all tokens as early as they can: the fewest MACs."""
    return (1.0, *(0.0,) * (config.num_layers - 2))


def constant_merges(config: Config, count: int) -> tuple[int, ...]:
    """Return `count` merges at each layer but the last; ConfigError names the largest possible count."""
    layers = config.num_layers - 1
    merges = (count,) * layers
    if count < 1 or any(most < count for most in most_merges(config.num_tokens, merges)):
        possible = [r for r in range(1, config.num_tokens) if _fits(config.num_tokens, (r,) * layers)] or [0]
        raise ConfigError(
            f"merge: got {count}, expected 1 to {possible[-1]}: at most half of the tokens can merge at a layer, and "
            f"{layers} layers of {config.num_patches} patch tokens merge"
        )
    return merges


def listed_merges(config: Config, counts: Sequence[int]) -> tuple[int, ...]:
    """Return one count for each layer but the last; ConfigError for a wrong number of them or too many merges."""
    layers = config.num_layers - 1
    if len(counts) != layers:
        raise ConfigError(
            f"merge: got {len(counts)} numbers, expected one, or {layers}, one for each layer but the last, whose "
            "merges would not change the logits"
        )
    for layer, (count, most) in enumerate(zip(counts, most_merges(config.num_tokens, counts), strict=True)):
        if not 0 <= count <= most:
            raise ConfigError(
                f"merge: got {count} at layer {layer} (from 0), expected 0 to {most}: at most half of the "
                "tokens that are left can merge"
            )
    if not any(counts):
        raise ConfigError("merge: got only zeros, expected at least one token to merge")
    return tuple(counts)


def merges_to(config: Config, share: float) -> tuple[int, ...]:
    """Return merges, spread evenly, after which this share of the tokens is left; ConfigError if there are none."""
    least = config.num_tokens - sum(spread(config, config.num_tokens, even(config)))
    left = round(share * config.num_tokens) if 0 < share < 1 else 0
    if not least <= left < config.num_tokens:
        raise ConfigError(
            f"merge_to: got {share:g}, expected a share from {least / config.num_tokens:.3g} to below 1, in which at "
            "least one token merges"
        )
    total = config.num_tokens - left
    return spread(config, total, even(config))


def typed_schedule(
    config: Config, merge: str | None, merge_to: float | None, proportional: bool
) -> MergeSchedule:
    """Return what a user asked for: a number, a number for each layer but the last, a file, or a share that is left.

    Raises ConfigError.
    """
    if merge is None:
        assert merge_to is not None, "`Request` has checked it"
        return MergeSchedule(merges=merges_to(config, merge_to), proportional=proportional)
    parts = [part.strip() for part in merge.split(",")]
    if all(part.isdecimal() and len(part) < MAX_DIGITS for part in parts):
        counts = [int(part) for part in parts]
        merges = constant_merges(config, counts[0]) if len(counts) == 1 else listed_merges(config, counts)
        return MergeSchedule(merges=merges, proportional=proportional)
    if not os.path.isfile(merge):  # noqa: PTH113  # False for a name that is too long, too
        raise ConfigError(
            f"merge: got {merge!r}, expected a number of tokens, one for each layer but the last with commas, or a "
            "file that `morvit-deploy calibrate` wrote"
        )
    if proportional:
        raise ConfigError(
            f"proportional_attention: {merge} says whether attention is proportional; leave it out"
        )
    return read_schedule(Path(merge), config)


def read_schedule(path: Path, config: Config) -> MergeSchedule:
    """Read a schedule's file and check it against the unmerged ViT; ConfigError says what is wrong."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    parse_json(text, path, ConfigError, what=f"a {FORMAT} file")
    try:
        schedule = MergeSchedule.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{path} is not a {FORMAT} file:\n{explain(error)}") from None
    listed_merges(config, schedule.merges)
    return schedule


def merged_config(config: Config, schedule: MergeSchedule) -> Config:
    """Return the configuration of a plain ViT whose tokens merge; ConfigError for another model."""
    check_plain(config)
    merges = listed_merges(config, schedule.merges)
    layers = tuple(layer for layer, count in enumerate(merges) if count)
    left = [config.num_patches - sum(merges[: layer + 1]) for layer in layers]
    changes = {
        "format": GROWN, "routing": MERGED, "capacity": tuple(left), "attention_scope": "active",
        "reduction": Reduction(layers=layers, proportional=schedule.proportional),
    }  # fmt: skip
    return checked(config.model_copy(update=changes))


def check_plain(config: Config) -> None:
    """ConfigError for a model whose tokens cannot merge."""
    record: RoutingRecord = config.record
    if record.routes:
        raise ConfigError(
            f"merge: got a checkpoint with routing {config.routing!r}, expected a plain ViT (routing 'none'): tokens "
            "of others already leave, as they were trained to"
        )
    if config.sharing != "none":
        raise ConfigError(
            f"merge: got a ViT with tied layers (sharing {config.sharing!r}), expected one with sharing 'none'; "
            "convert it without --sharing"
        )
    if config.register_tokens:
        raise ConfigError(
            f"merge: got a ViT with {config.register_tokens} register tokens, expected none: they are no part of the "
            "image, so they must not merge, which merging by alternate positions does not allow"
        )
    if not config.cls_token or config.pooling != "cls":
        what = f"whose head reads the {config.pooling} of the patches" if config.cls_token else "without CLS"
        raise ConfigError(
            f"merge: got a ViT {what}, expected one whose head reads CLS: a mean would have to weigh merged tokens "
            "by their sizes, which the format does not hold"
        )
    if config.num_layers < 2:
        raise ConfigError(
            "merge: got a ViT of one layer, expected at least two: merges in the last change nothing"
        )


def schedule_of(config: Config) -> MergeSchedule:
    """Return the schedule of a merged configuration."""
    assert config.reduction is not None and config.capacity is not None
    left = dict(zip(config.reduction.layers, config.capacity, strict=True))
    merges, held = [], config.num_patches
    for layer in range(config.num_layers - 1):
        after = left.get(layer, held)
        merges.append(held - after)
        held = after
    return MergeSchedule(merges=tuple(merges), proportional=config.reduction.proportional)


def _fits(tokens: int, merges: Sequence[int]) -> bool:
    return all(most >= count for count, most in zip(merges, most_merges(tokens, merges), strict=True))


def as_text(merge: int | Sequence[int] | str | Path) -> str:
    """Return what Python's callers give for `merge` as the command line takes it."""
    if isinstance(merge, int | str | Path):
        return str(merge)
    return ",".join(map(str, merge))


def described(schedule: MergeSchedule) -> str:
    """Return a schedule in a few words, as in 8 × 11."""
    merges = schedule.merges
    shown = f"{merges[0]} at each layer" if len(set(merges)) == 1 else json.dumps(list(merges))
    return shown + (", proportional attention" if schedule.proportional else "")
