"""The base of checkpoint families: names for detection, rules for keys, and the draft of a converted checkpoint."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError, listed
from morvit_deploy.model.config import GROWN
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.keymap import COPIED, Assignment, Recipe, Row, Rule, assign, build, likely
from morvit_deploy.sources.tensors.reading import Contents

SHOWN = 12  # keys that a message lists
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def unsupported(contents: Contents, title: str, problems: Sequence[str]) -> CheckpointError:
    """The error for a model with components that not even the newest format has fields for."""
    return CheckpointError(
        f"{contents.path} is {title} with components that {GROWN} does not support:\n{listed(problems, SHOWN)}"
    )


@dataclass
class Draft:
    """A checkpoint during conversion: fields of config.json, tensors by native name, and the table of keys."""

    fields: dict[str, Any]
    tensors: dict[str, Tensor]
    rows: list[Row]
    remarks: list[str] = field(default_factory=list)
    tied: str = ""  # how layers are tied, and how this was verified
    before: dict[str, Any] = field(default_factory=dict)  # provenance of the source itself


def rename(draft: Draft, names: Mapping[str, str]) -> None:
    """Rename tensors of a draft, in its table too."""
    draft.tensors = {names.get(name, name): tensor for name, tensor in draft.tensors.items()}
    draft.rows = [replace(row, target=names.get(row.target or "", row.target)) for row in draft.rows]


class Family(ABC):
    """The checkpoints of one training code. Subclasses implement `draft`; this class maps the keys."""

    name: ClassVar[str]
    title: ClassVar[str]  # with its article, for messages
    signature: ClassVar[tuple[str, ...]]  # patterns of keys that every checkpoint of the family has
    rules: ClassVar[tuple[Rule, ...]]
    recipes: ClassVar[tuple[Recipe, ...]] = (COPIED,)
    method: ClassVar[str] = ""  # what the arguments in a file call it, if tokens leave between its layers
    named: ClassVar[bool] = True  # its tensors' names tell it from other families

    @abstractmethod
    def draft(self, contents: Contents, questions: Questions) -> Draft:
        """Return the fields and tensors of the native checkpoint; `questions` settles what the files lack."""

    def assignment(self, contents: Contents) -> Assignment:
        """Assign each key to a target; CheckpointError lists every key without one."""
        found = assign(contents.tensors, self.rules)
        targets = [key for slots in found.parts.values() for key in slots.values()]
        problems = [f"{key}: {why}" for key, why in _grouped(found.refused).items()]
        if problems:
            raise unsupported(contents, self.title, problems)
        problems = [f"unexpected: {key}{likely(key, targets)}" for key in found.unknown]
        problems += [f"two sources for one tensor: {pair}" for pair in found.twice]
        if problems:
            raise CheckpointError(
                f"{contents.path} is {self.title}, but {len(problems)} of its {len(contents.tensors)} tensors do "
                f"not belong to one:\n{listed(problems, SHOWN)}"
            )
        return found

    def built(
        self, contents: Contents, recipes: Sequence[Recipe] | None = None
    ) -> tuple[dict[str, Tensor], list[Row]]:
        """Return the target tensors and the table of keys.

        Raises CheckpointError for tensors that are not weights and for targets that are incomplete.
        """
        assignment = self.assignment(contents)
        used = {key for slots in assignment.parts.values() for key in slots.values()}
        problems = [
            f"{key}: {why}" for key, t in contents.tensors.items() if key in used and (why := unsound(t))
        ]
        if problems:
            raise CheckpointError(
                f"{contents.path} is {self.title}, but {len(problems)} of its tensors are not usable weights:\n"
                f"{listed(problems, SHOWN)}"
            )
        recipes = self.recipes if recipes is None else recipes
        tensors, rows, problems = build(assignment, contents.tensors, recipes)
        if problems:
            raise CheckpointError(f"{contents.path} is {self.title}, but:\n{listed(problems, SHOWN)}")
        return tensors, rows


@dataclass(frozen=True)
class Foreign:
    """A family that is detected but not supported."""

    title: str
    signature: tuple[str, ...]
    reason: str


def evidence(signature: tuple[str, ...], keys: Sequence[str]) -> list[str] | None:
    """Return the first key that matches each pattern of a signature; None if a pattern matches no key."""
    found = []
    for pattern in signature:
        regex = re.compile(pattern)
        key = next((key for key in keys if regex.match(key)), None)
        if key is None:
            return None
        found.append(key)
    return found


def unsound(tensor: Tensor) -> str:
    """Return why a tensor cannot be a weight: its type, shape or values; empty if it can."""
    if tensor.dtype not in FLOATS or tensor.layout != torch.strided:
        kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")
        hint = "; dequantise it first" if "int" in kind else ""
        return f"{kind}, expected float32, float16, bfloat16 or float64{hint}"
    if not tensor.numel() or not tensor.ndim:
        return f"shape {list(tensor.shape)}, expected a weight"
    bad = tensor.numel() - int(torch.isfinite(tensor).sum())
    return f"{bad} of {tensor.numel():,} values are NaN or infinite" if bad else ""


def _grouped(refused: Mapping[str, str]) -> dict[str, str]:
    """Group keys by reason; returns the first key and the number of others, with the reason."""
    by_reason: dict[str, list[str]] = {}
    for key, why in refused.items():
        by_reason.setdefault(why, []).append(key)
    return {
        keys[0] + (f" and {len(keys) - 1} more" if len(keys) > 1 else ""): why
        for why, keys in by_reason.items()
    }
