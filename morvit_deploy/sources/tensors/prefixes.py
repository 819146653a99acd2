"""Names that wrappers and training code put around a model: prefixes of all keys, and segments inside keys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from morvit_deploy.errors import CheckpointError

# torch.compile, DataParallel, activation checkpointing, FSDP, Fabric: modules that only call the one inside
WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module")
HOLDERS = ("model", "net")  # attributes that hold the model in Lightning modules
PREFIXES = tuple(f"{name}." for name in (*WRAPPERS, *HOLDERS))
COUNTERS = {"n_averaged": "the number of models that were averaged (SWA)"}
LOSS = re.compile(r"criterion|loss(_\w+)?|\w+_loss|(\w+_)?metrics?")  # of a module beside the model
SHOWN = 12  # prefixes that a message lists


@dataclass(frozen=True)
class Bare:
    """A model's tensors by its own names."""

    tensors: dict[str, Tensor]
    prefix: str = ""  # removed from every key
    dropped: dict[str, str] = field(default_factory=dict)  # key that is not of the model -> why


def bare(tensors: Mapping[str, Tensor], path: Path, prefix: str | None = None) -> Bare:
    """Return the tensors without what wrappers add to their names; with `prefix`, only those that begin with it.

    Raises CheckpointError if no key begins with `prefix`, or if two keys become the same.
    """
    dropped = {key: why for key, why in COUNTERS.items() if key in tensors and tensors[key].ndim == 0}
    found = {key: value for key, value in tensors.items() if key not in dropped}
    if prefix is not None:
        found, outside = _under(_unwrapped(found, path), prefix, path)
        dropped |= outside
    found, removed = without_prefixes(found)
    losses = {key: "loss or metric of training" for key in found if LOSS.fullmatch(key.partition(".")[0])}
    if losses and len(losses) < len(found):
        rest, more = without_prefixes({key: value for key, value in found.items() if key not in losses})
        if more:  # the model is one module, and the loss another beside it
            found, removed, dropped = rest, removed + more, dropped | losses
    found = _unwrapped(found, path)
    found, more = without_prefixes(found)
    return Bare(found, (f"{prefix.rstrip('.')}." if prefix else "") + removed + more, dropped)


def without_prefixes(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Remove prefixes that wrappers such as DataParallel add to **every** key; returns tensors and prefix."""
    stripped, prefix = dict(tensors), ""
    while found := next(
        (p for p in PREFIXES if stripped and all(key.startswith(p) for key in stripped)), None
    ):
        stripped = {key.removeprefix(found): value for key, value in stripped.items()}
        prefix += found
    return stripped, prefix


def prefixes(keys: Sequence[str]) -> dict[str, int]:
    """Return the first parts of names, each with its number of keys."""
    return dict(Counter(key.partition(".")[0] + "." for key in keys if "." in key))


def _unwrapped(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Remove the segments of wrappers inside keys: `blocks.0._orig_mod.norm1.weight`."""
    names = {key: _without_segments(key) for key in tensors}
    if twice := [name for name, number in Counter(names.values()).items() if number > 1]:
        both = [key for key, name in names.items() if name == twice[0]]
        raise CheckpointError(
            f"{path} contains {' and '.join(both)}, expected one of them: they are one tensor with and without its "
            "wrapper; choose the model with --prefix, or save model.state_dict() once"
        )
    return {names[key]: value for key, value in tensors.items()}


def _without_segments(key: str) -> str:
    *modules, name = key.split(".")
    return ".".join([*(part for part in modules if part not in WRAPPERS), name])


def _under(
    tensors: Mapping[str, Tensor], prefix: str, path: Path
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors whose names begin with `prefix`, without it, and the others with the reason."""
    start = _without_segments(prefix.rstrip(".") + ".")
    found = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
    if not found or not start.strip("."):
        there = [f"{name} ({number} tensors)" for name, number in prefixes(list(tensors)).items()]
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        raise CheckpointError(
            f"{path}: got --prefix {prefix}, with which no tensor begins; expected one of "
            f"{', '.join(there[:SHOWN]) or 'none: its names have one part'}{more}"
        )
    return found, {key: "outside --prefix" for key in tensors if not key.startswith(start)}
