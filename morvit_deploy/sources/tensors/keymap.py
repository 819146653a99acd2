"""Rules for source tensors: each is used, dropped, or refused with a reason; unknown ones are errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]  # the sources of one target, by slot
Combine = Callable[[Parts], Tensor]

WHOLE = "whole"
KIND = r"(?P<kind>weight|bias)"
LAYER = r"(?P<rest>norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])"  # of a block, in timm and native checkpoints


@dataclass(frozen=True)
class Rule:
    """What to do with source keys that fully match `pattern`: use them for `targets`, drop them, or refuse them.

    A target is a target key, in which `\\g<name>` is a group of the pattern, and the slot that the source fills. A
    target may combine several sources, and a source may be part of several targets.
    """

    pattern: str
    targets: tuple[tuple[str, str], ...] = ()
    drop: str = ""  # why it does not affect logits
    refuse: str = ""  # why no format supports a model with this tensor


def copy(pattern: str, target: str) -> Rule:
    """Copy the source to the target."""
    return Rule(pattern, ((target, WHOLE),))


def part(pattern: str, slot: str, *targets: str) -> Rule:
    """Use the source as one slot of each target."""
    return Rule(pattern, tuple((target, slot) for target in targets))


def drop(pattern: str, why: str) -> Rule:
    """Drop the source, which does not affect logits."""
    return Rule(pattern, drop=why)


def refuse(pattern: str, why: str) -> Rule:
    """Refuse the source, which affects logits in a way that no format supports."""
    return Rule(pattern, refuse=why)


@dataclass(frozen=True)
class Assignment:
    """The result of applying rules to source keys."""

    parts: dict[str, dict[str, str]] = field(default_factory=dict)  # target -> slot -> source key
    dropped: dict[str, str] = field(default_factory=dict)  # source key -> why
    refused: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)  # two sources for one slot

    @property
    def known(self) -> int:
        """Number of source keys that a rule matches."""
        used = {key for slots in self.parts.values() for key in slots.values()}
        return len(used) + len(self.dropped) + len(self.refused)


def assign(keys: Iterable[str], rules: Sequence[Rule]) -> Assignment:
    """Apply the first matching rule to each key."""
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
    """How to combine the slots of a target."""

    slots: frozenset[str]
    combine: Combine
    what: str  # description in the table


def recipe(what: str, combine: Combine, *slots: str) -> Recipe:
    """Return the recipe of targets with exactly these slots."""
    return Recipe(frozenset(slots), combine, what)


def scaled(parts: Parts) -> Tensor:
    """Fold LayerScale into the layer before it, in float64: γ·(W·x + b) = (γW)·x + γb."""
    whole, gamma = parts[WHOLE].double(), parts["gamma"].double()
    return (gamma.reshape(-1, *(1,) * (whole.ndim - 1)) * whole).float()


COPIED = recipe("copied", lambda parts: parts[WHOLE], WHOLE)
QKV = recipe("q, k, v concatenated", lambda parts: torch.cat([parts[slot] for slot in "qkv"]), *"qkv")
LAYER_SCALE = recipe("LayerScale folded in", scaled, WHOLE, "gamma")


@dataclass(frozen=True)
class Row:
    """A row of the table: a source key, the target it is part of, and the rule."""

    source: str
    target: str | None
    how: str
    shape: tuple[int, ...]


def build(
    assignment: Assignment, tensors: Mapping[str, Tensor], recipes: Sequence[Recipe] = (COPIED,)
) -> tuple[dict[str, Tensor], list[Row], list[str]]:
    """Return targets by name, the table, and a problem for each target that no recipe can make."""
    known = {one.slots: one for one in recipes}
    built: dict[str, Tensor] = {}
    rows, problems = [], []
    for target, slots in assignment.parts.items():
        one = known.get(frozenset(slots))
        if one is None:
            nearest = min(known, key=lambda wanted: len(wanted ^ set(slots)))
            lacking = [f"missing {slot}" for slot in sorted(nearest - set(slots))]
            surplus = [f"unexpected {slots[slot]}" for slot in sorted(set(slots) - nearest)]
            problems.append(
                f"incomplete {target} ({known[nearest].what}) from {next(iter(slots.values()))}: "
                + ", ".join(lacking + surplus)
            )
            continue
        try:
            built[target] = one.combine({slot: tensors[key] for slot, key in slots.items()})
        except RuntimeError:  # torch's, of shapes
            shapes = ", ".join(f"{key} {list(tensors[key].shape)}" for key in slots.values())
            problems.append(f"{target} ({one.what}): shapes do not match: {shapes}")
            continue
        rows += [Row(key, target, one.what, tuple(tensors[key].shape)) for key in slots.values()]
    rows += [
        Row(key, None, f"dropped: {why}", tuple(tensors[key].shape))
        for key, why in assignment.dropped.items()
    ]
    return built, rows, problems


def likely(name: str, names: Iterable[str]) -> str:
    """Return a hint for a key that is similar to one of `names`."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.85)
    return f" (near {close[0]})" if close else ""
