"""What becomes of each source tensor: used, dropped by a named rule, refused with a reason, or an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]  # what one target is made of, by slot
Combine = Callable[[Parts], Tensor]

WHOLE = "whole"
KIND = r"(?P<kind>weight|bias)"
LAYER = r"(?P<rest>norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])"  # of a block, by timm's names, which are ours


@dataclass(frozen=True)
class Rule:
    """Source keys that match `pattern` (the whole key): used for `targets`, or dropped, or refused.

    A target is a target key in which `\\g<name>` stands for a group of the pattern, with the slot that the source
    tensor fills there: several sources can make up one target, and one source can be part of several.
    """

    pattern: str
    targets: tuple[tuple[str, str], ...] = ()
    drop: str = ""  # why nothing reads it
    refuse: str = ""  # why a model with this tensor has no morvit/1 form


def copy(pattern: str, target: str) -> Rule:
    """The source is the target."""
    return Rule(pattern, ((target, WHOLE),))


def part(pattern: str, slot: str, *targets: str) -> Rule:
    """The source fills one slot of each target."""
    return Rule(pattern, tuple((target, slot) for target in targets))


def drop(pattern: str, why: str) -> Rule:
    """The source does not affect logits."""
    return Rule(pattern, drop=why)


def refuse(pattern: str, why: str) -> Rule:
    """The source affects logits in a way that morvit/1 does not support."""
    return Rule(pattern, refuse=why)


@dataclass(frozen=True)
class Assignment:
    """Where each source key went."""

    parts: dict[str, dict[str, str]] = field(default_factory=dict)  # target -> slot -> source key
    dropped: dict[str, str] = field(default_factory=dict)  # source key -> why
    refused: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)  # two sources for one place

    @property
    def known(self) -> int:
        """Source keys that some rule matches."""
        used = {key for slots in self.parts.values() for key in slots.values()}
        return len(used) + len(self.dropped) + len(self.refused)


def assign(keys: Iterable[str], rules: Sequence[Rule]) -> Assignment:
    """Send each key to the place of the first rule that matches it."""
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    out = Assignment()
    for key in keys:
        found = next(((m, rule) for regex, rule in compiled if (m := regex.fullmatch(key))), None)
        if found is None:
            out.unknown.append(key)
            continue
        match, rule = found
        if rule.drop or rule.refuse:
            (out.dropped if rule.drop else out.refused)[key] = rule.drop or rule.refuse
        for template, slot in rule.targets:
            slots = out.parts.setdefault(match.expand(template), {})
            if slot in slots:
                out.twice.append(f"{key} and {slots[slot]}")
            slots[slot] = key
    return out


@dataclass(frozen=True)
class Recipe:
    """How the slots of a target make it."""

    slots: frozenset[str]
    combine: Combine
    what: str  # for the table


def recipe(what: str, combine: Combine, *slots: str) -> Recipe:
    """A target of exactly these slots."""
    return Recipe(frozenset(slots), combine, what)


def stacked(*slots: str) -> Combine:
    """The slots one under the other: Q, K and V as one weight (timm's layout)."""
    return lambda parts: torch.cat([parts[slot] for slot in slots])


def scaled(parts: Parts) -> Tensor:
    """LayerScale into the layer before it: γ·(W·x + b) = (γW)·x + γb, computed in float64."""
    whole, gamma = parts[WHOLE].double(), parts["gamma"].double()
    return (gamma.reshape(-1, *(1,) * (whole.ndim - 1)) * whole).float()


COPIED = recipe("copied", lambda parts: parts[WHOLE], WHOLE)
QKV = recipe("q, k, v as one", stacked("q", "k", "v"), "q", "k", "v")
LAYER_SCALE = recipe("LayerScale folded in", scaled, WHOLE, "gamma")


@dataclass(frozen=True)
class Row:
    """One line of the table: a source key, the target it is part of, and by which rule."""

    source: str
    target: str | None
    how: str
    shape: tuple[int, ...]


def build(
    assignment: Assignment, tensors: Mapping[str, Tensor], recipes: Sequence[Recipe] = (COPIED,)
) -> tuple[dict[str, Tensor], list[Row], list[str]]:
    """Targets by name, the table, and a problem for each target whose slots no recipe has, or do not fit."""
    known = {one.slots: one for one in recipes}
    built: dict[str, Tensor] = {}
    rows, problems = [], []
    for target, slots in assignment.parts.items():
        one = known.get(frozenset(slots))
        if one is None:
            nearest = min(known, key=lambda wanted: len(wanted ^ set(slots)))
            lacking = [f"missing {slot}" for slot in sorted(nearest - set(slots))]
            surplus = [f"too much: {slots[slot]}" for slot in sorted(set(slots) - nearest)]
            problems.append(
                f"half of {target} ({known[nearest].what}) from {next(iter(slots.values()))}: "
                + ", ".join(lacking + surplus)
            )
            continue
        try:
            built[target] = one.combine({slot: tensors[key] for slot, key in slots.items()})
        except RuntimeError:  # torch's, of shapes
            shapes = ", ".join(f"{key} {list(tensors[key].shape)}" for key in slots.values())
            problems.append(f"{target} ({one.what}): its parts do not fit each other: {shapes}")
            continue
        rows += [Row(key, target, one.what, tuple(tensors[key].shape)) for key in slots.values()]
    rows += [
        Row(key, None, f"dropped: {why}", tuple(tensors[key].shape))
        for key, why in assignment.dropped.items()
    ]
    return built, rows, problems


def likely(name: str, names: Iterable[str]) -> str:
    """« (did you mean …?)» for a key that is nearly one of `names`."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.85)
    return f" (near {close[0]})" if close else ""
