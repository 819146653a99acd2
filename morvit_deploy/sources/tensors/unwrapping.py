"""Finding the weights in a training checkpoint, which also contains training state, in timm's order of preference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.settings.arguments import ENTRIES, arguments_in

AVERAGED = ("state_dict_ema", "model_ema")
TRAINED = ("state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # DataParallel, torch.compile, Lightning
TRAINING_STATE = re.compile(
    r"(^|[^a-z])(optim\w*|\w*sched\w*|\w*scaler|amp|loss\w*|criterion|rng|random|callbacks?|loops?|args|config|cfg|"
    r"meters?|metrics?|stats|history|best|epochs?|iter\w*|steps?|version|times?)([^a-z]|$)",
    re.IGNORECASE,
)  # words in the names of training state, which does not affect logits
DEEP = 8  # levels of containers that are searched for tensors
SHOWN = 12  # entries that a message lists


@dataclass(frozen=True)
class Unwrapped:
    """The tensors of one file, and the entries that were dropped."""

    tensors: dict[str, Tensor]
    wrapper: str | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the training script, by entry


def unwrap(held: Any, path: Path, ema: bool) -> Unwrapped:
    """Return the state dict in an object saved by a training script; without `ema`, averaged weights are skipped.

    Raises CheckpointError if there is none, or if the object contains other weights that are not training state, such
    as a separate head or router, or a second model.
    """
    if not isinstance(held, dict):
        raise CheckpointError(
            f"{path}: got a {type(held).__name__}, expected a dictionary of tensors; save model.state_dict()"
        )
    entries = (*AVERAGED, *TRAINED) if ema else TRAINED
    wrapper = next((name for name in entries if _is_state(held.get(name))), None)
    state = held if wrapper is None else held[wrapper]
    if not _is_state(state):
        passed = [name for name in AVERAGED if _is_state(held.get(name))]
        raise CheckpointError(
            f"{path} contains no state dict, neither at the top level nor under {', '.join(entries)}"
            + (f" (--no-ema skips {', '.join(passed)})" if passed else "")
            + f"; its entries are {_entries(held)}. Save one model: torch.save(model.state_dict(), PATH)"
        )
    others = {str(name): value for name, value in state.items() if not isinstance(value, Tensor)}
    dropped = {name: f"not a tensor: {type(value).__name__}" for name, value in others.items()}
    if wrapper is not None:
        beside = {str(name): value for name, value in held.items() if name != wrapper}
        dropped |= {name: _why(name, value, wrapper, ema) for name, value in beside.items()}
        others |= {name: value for name, value in beside.items() if name not in (*AVERAGED, *TRAINED)}
    unknown = {k: v for k, v in others.items() if _weights_in(v) and not TRAINING_STATE.search(k)}
    if unknown:
        raise CheckpointError(
            f"{path} contains other weights besides {wrapper or 'its tensors'}, which may affect logits: "
            f"{_entries(unknown)}. Save the complete model: torch.save(model.state_dict(), PATH)"
        )
    tensors = {str(name): value.detach() for name, value in state.items() if isinstance(value, Tensor)}
    return Unwrapped(tensors, wrapper, dropped, arguments_in(others))


def without_prefixes(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Remove prefixes that wrappers such as DataParallel add to **every** key; returns tensors and prefix."""
    stripped, prefix = dict(tensors), ""
    while found := next((p for p in PREFIXES if all(key.startswith(p) for key in stripped)), None):
        stripped = {key.removeprefix(found): value for key, value in stripped.items()}
        prefix += found
    return stripped, prefix


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
