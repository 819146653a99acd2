"""What a family is: names it is detected from, rules for its keys, and a draft of the checkpoint they lead to."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.keymap import COPIED, Assignment, Recipe, Row, Rule, assign, build, likely
from morvit_deploy.sources.tensors.reading import Contents

SHOWN = 12  # keys that a refusal lists
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass
class Draft:
    """A checkpoint on its way: fields of config.json, tensors by their morvit/1 names, and what was done."""

    fields: dict[str, Any]
    tensors: dict[str, Tensor]
    rows: list[Row]
    remarks: list[str] = field(default_factory=list)
    tied: str = ""  # how layers are tied, and how that was proved
    before: dict[str, Any] = field(default_factory=dict)  # provenance that the source had already


def rename(draft: Draft, names: Mapping[str, str]) -> None:
    """Give targets of a draft other names, in its table too."""
    draft.tensors = {names.get(name, name): tensor for name, tensor in draft.tensors.items()}
    draft.rows = [replace(row, target=names.get(row.target or "", row.target)) for row in draft.rows]


class Family(ABC):
    """One training code's checkpoints. Subclasses write `draft`; this class reads the keys."""

    name: ClassVar[str]
    title: ClassVar[str]  # with its article, for messages
    signature: ClassVar[tuple[str, ...]]  # patterns of keys that all checkpoints of this family have
    rules: ClassVar[tuple[Rule, ...]]
    recipes: ClassVar[tuple[Recipe, ...]] = (COPIED,)

    @abstractmethod
    def draft(self, contents: Contents, questions: Questions) -> Draft:
        """Fields and tensors of the morvit/1 checkpoint; what files do not hold is settled by `questions`."""

    def assignment(self, contents: Contents) -> Assignment:
        """Where each key goes. CheckpointError that lists every key that cannot go anywhere."""
        found = assign(contents.tensors, self.rules)
        targets = [key for slots in found.parts.values() for key in slots.values()]
        problems = [f"{key}: {why}" for key, why in _grouped(found.refused).items()]
        if problems:
            raise CheckpointError(
                f"{contents.path} is {self.title}, with parts that morvit/1 cannot say:\n{listed(problems)}"
            )
        problems = [f"unexpected: {key}{likely(key, targets)}" for key in found.unknown]
        problems += [f"two sources for one tensor: {pair}" for pair in found.twice]
        if problems:
            raise CheckpointError(
                f"{contents.path} is {self.title}, but {len(problems)} of its {len(contents.tensors)} tensors "
                f"have no place there:\n{listed(problems)}"
            )
        return found

    def built(
        self, contents: Contents, recipes: Sequence[Recipe] | None = None
    ) -> tuple[dict[str, Tensor], list[Row]]:
        """Target tensors and the table.

        CheckpointError for tensors that hold no weights, and for a target of which only half is there.
        """
        assignment = self.assignment(contents)
        used = {key for slots in assignment.parts.values() for key in slots.values()}
        problems = [
            f"{key}: {why}" for key, t in contents.tensors.items() if key in used and (why := unsound(t))
        ]
        if problems:
            raise CheckpointError(
                f"{contents.path} is {self.title}, but {len(problems)} of its tensors hold no weights:\n"
                f"{listed(problems)}"
            )
        recipes = self.recipes if recipes is None else recipes
        tensors, rows, problems = build(assignment, contents.tensors, recipes)
        if problems:
            raise CheckpointError(f"{contents.path} is {self.title}, but:\n{listed(problems)}")
        return tensors, rows


@dataclass(frozen=True)
class Foreign:
    """A family that is recognised and refused."""

    name: str
    title: str
    signature: tuple[str, ...]
    reason: str


def evidence(signature: tuple[str, ...], keys: Sequence[str]) -> list[str] | None:
    """For each pattern of a signature the first key that it matches; None when one matches none."""
    found = []
    for pattern in signature:
        regex = re.compile(pattern)
        key = next((key for key in keys if regex.match(key)), None)
        if key is None:
            return None
        found.append(key)
    return found


def unsound(tensor: Tensor) -> str:
    """Why a tensor can be no weight: its type, its shape or its numbers; empty when it can."""
    if tensor.dtype not in FLOATS or tensor.layout != torch.strided:
        kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")
        hint = "; dequantise it first" if "int" in kind else ""
        return f"{kind}, expected float32, float16, bfloat16 or float64{hint}"
    if not tensor.numel() or not tensor.ndim:
        return f"shape {list(tensor.shape)}, expected a weight"
    bad = tensor.numel() - int(torch.isfinite(tensor).sum())
    return f"{bad} of {tensor.numel():,} values are NaN or infinite" if bad else ""


def listed(problems: Sequence[str]) -> str:
    """Problems, a line each, the first few of them."""
    lines = [f"  - {problem}" for problem in problems[:SHOWN]]
    return "\n".join(lines + ([f"  - and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []))


def _grouped(refused: Mapping[str, str]) -> dict[str, str]:
    """One line for each reason: the first key, how many more, and the reason."""
    by_reason: dict[str, list[str]] = {}
    for key, why in refused.items():
        by_reason.setdefault(why, []).append(key)
    return {
        keys[0] + (f" and {len(keys) - 1} more" if len(keys) > 1 else ""): why
        for why, keys in by_reason.items()
    }
