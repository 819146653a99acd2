"""Finding the weights in a training checkpoint, which also contains training state, in timm's order of preference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.settings.arguments import ENTRIES, arguments_in
from morvit_deploy.sources.tensors.numpy_objects import Array

AVERAGED = ("state_dict_ema", "model_ema")
TRAINED = ("state_dict", "model", "model_state_dict")
TRAINING_STATE = re.compile(
    r"(^|[^a-z])(optim\w*|\w*sched\w*|\w*scaler|amp|loss\w*|criterion|rng|random|callbacks?|loops?|args|config|cfg|"
    r"meters?|metrics?|stats|history|best|epochs?|iter\w*|steps?|version|times?)([^a-z]|$)",
    re.IGNORECASE,
)  # words in the names of training state, which does not affect logits
OPTIMIZER = re.compile(r"optim|.*sched|.*scaler", re.IGNORECASE)  # their entries are never a model
DEEP = 8  # levels of containers that are searched for tensors
SHOWN = 12  # entries that a message lists
SAVE = "Save one model: torch.save(model.state_dict(), PATH)"


@dataclass(frozen=True)
class Unwrapped:
    """The tensors of one file, and the entries that were dropped."""

    tensors: dict[str, Tensor]
    wrapper: str | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the training script, by entry


def unwrap(held: Any, path: Path, ema: bool, entry: str | None = None) -> Unwrapped:
    """Return the state dict in an object saved by a training script; without `ema`, averaged weights are skipped.

    `entry` names the one to use; its parts are separated by dots. Raises CheckpointError if there is none, or if the
    object contains other weights that are not training state, such as a separate head or router, or a second model.
    """
    if not isinstance(held, dict):
        raise CheckpointError(
            f"{path}: got a {type(held).__name__}, expected a dictionary of tensors; save model.state_dict()"
        )
    if entry is not None:
        return _chosen(held, path, entry)
    entries = (*AVERAGED, *TRAINED) if ema else TRAINED
    wrapper = next((name for name in entries if _is_state(held.get(name))), None)
    state = held if wrapper is None else held[wrapper]
    if not _is_state(state):
        passed = [name for name in AVERAGED if _is_state(held.get(name))]
        raise CheckpointError(
            f"{path} contains no state dict, neither at the top level nor under {', '.join(entries)}"
            + (f" (--no-ema skips {', '.join(passed)})" if passed else "")
            + f"; its entries are {_entries(held)}. {_what_to_do(held)}"
        )
    others = {str(name): value for name, value in state.items() if not isinstance(value, Tensor)}
    dropped = _not_tensors(state)
    if wrapper is not None:
        beside = {str(name): value for name, value in held.items() if name != wrapper}
        dropped |= {name: _why(name, value, wrapper, ema) for name, value in beside.items()}
        others |= {name: value for name, value in beside.items() if name not in (*AVERAGED, *TRAINED)}
    unknown = {k: v for k, v in others.items() if _weights_in(v) and not TRAINING_STATE.search(k)}
    if unknown:
        advice = "Save the complete model: torch.save(model.state_dict(), PATH)"
        if wrapper is not None:
            advice += f"; or, if they are not part of the model, give --entry {wrapper}"
        raise CheckpointError(
            f"{path} contains other weights besides {wrapper or 'its tensors'}, which may affect logits: "
            f"{_entries(unknown)}. {advice}"
        )
    return Unwrapped(_tensors(state, path), wrapper, dropped, arguments_in(others))


def states(held: Any, deep: int = DEEP) -> dict[str, int]:
    """Return the names by which `--entry` can choose a state dict in an object, with their numbers of weights."""
    found: dict[str, int] = {}
    for name, value in held.items() if isinstance(held, dict) and deep else ():
        if OPTIMIZER.match(str(name)):
            continue
        if _is_state(value) and _weights_in(value):
            found[str(name)] = _weights_in(value)
        else:
            found |= {f"{name}.{inner}": number for inner, number in states(value, deep - 1).items()}
    return found


def _chosen(held: dict[Any, Any], path: Path, entry: str) -> Unwrapped:
    """Return the state dict that `entry` names; CheckpointError lists those that there are."""
    state = _at(held, entry)
    if not _is_state(state):
        there = [f"{name} ({number} weights)" for name, number in states(held).items()]
        named = ", ".join(there[:SHOWN]) or "none; leave the option out"
        kind = "no such entry" if state is None else f"an entry without tensors ({type(state).__name__})"
        raise CheckpointError(
            f"{path}: got --entry {entry}, {kind}; expected one of its state dicts: {named}"
        )
    if inner := {k: v for k, v in state.items() if not isinstance(v, Tensor) and _weights_in(v)}:
        raise CheckpointError(
            f"{path}: --entry {entry} contains other weights besides its tensors: {_entries(inner)}; expected one "
            f"model. {SAVE}"
        )
    beside = {str(name): "not chosen by --entry" for name in held if str(name) != entry.split(".")[0]}
    others = {str(name): value for name, value in held.items() if not isinstance(value, Tensor)}
    return Unwrapped(_tensors(state, path), entry, beside | _not_tensors(state), arguments_in(others))


def _at(held: Any, entry: str) -> Any:
    """Return the value under a name whose parts are separated by dots; None if there is none."""
    if not isinstance(held, dict):
        return None
    named = {str(name): value for name, value in held.items()}
    if entry in named:
        return named[entry]
    splits = (i for i, letter in enumerate(entry) if letter == ".")
    found = (_at(named.get(entry[:i]), entry[i + 1 :]) for i in splits)
    return next((value for value in found if value is not None), None)


def _tensors(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict; CheckpointError for two keys that are the same text."""
    found = {str(name): value.detach() for name, value in state.items() if isinstance(value, Tensor)}
    names = Counter(str(name) for name, value in state.items() if isinstance(value, Tensor))
    if twice := [name for name, number in names.items() if number > 1]:
        raise CheckpointError(
            f"{path} contains two tensors named {twice[0]}, expected each name once. {SAVE}"
        )
    return found


def _not_tensors(state: Mapping[Any, Any]) -> dict[str, str]:
    return {
        str(name): f"not a tensor: {type(value).__name__}"
        for name, value in state.items()
        if not isinstance(value, Tensor)
    }


def _what_to_do(held: Any) -> str:
    there = list(states(held))
    return f"Choose one with --entry: {', '.join(there[:SHOWN])}" if there else SAVE


def _is_state(value: Any) -> bool:
    """Whether this is a dictionary with a tensor in it; an EMA that was never started is empty."""
    return isinstance(value, dict) and any(isinstance(one, Tensor) for one in value.values())


def _why(name: str, value: Any, wrapper: str, ema: bool) -> str:
    """Return why an entry other than the weights is dropped."""
    if name not in (*AVERAGED, *TRAINED):
        return "arguments of the training script" if name in ENTRIES else "training state"
    if not _is_state(value):
        return "contains no tensors"
    if name in AVERAGED and not ema:
        return "averaged weights, skipped by --no-ema"
    if name in TRAINED and wrapper in AVERAGED:
        return "trained weights; the averaged ones are used (--no-ema selects these)"
    return f"weights; those under {wrapper} are preferred"


def _weights_in(value: Any, deep: int = DEEP) -> int:
    """Count floating-point tensors with at least one axis, in containers too. A scalar is a metric."""
    if isinstance(value, Tensor):
        return int(value.is_floating_point() and value.ndim > 0)
    if isinstance(value, Array):
        return int(value.values.dtype.kind == "f" and value.values.ndim > 0)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(_weights_in(one, deep - 1) for one in inner) if deep else 0


def _entries(held: Mapping[Any, Any]) -> str:
    """Return the names of entries, with the number of weights in each."""
    listed = [
        str(name) + (f" ({number} weights)" if (number := _weights_in(value)) else "")
        for name, value in list(held.items())[:SHOWN]
    ]
    more = f" and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
    return (", ".join(listed) or "none") + more
