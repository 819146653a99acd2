"""Training code saves more than weights, under names of its own: finds the weights inside, by timm's order."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from morvit_deploy.errors import CheckpointError

AVERAGED = ("state_dict_ema", "model_ema")
TRAINED = ("state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # DataParallel, torch.compile, Lightning


@dataclass(frozen=True)
class Unwrapped:
    """The tensors of one file, and what else it held."""

    tensors: dict[str, Tensor]
    wrapper: str | None = None
    prefix: str = ""
    dropped: dict[str, str] = field(default_factory=dict)


def unwrap(held: Any, path: Path, ema: bool) -> Unwrapped:
    """The state dict inside what a training script saved; `ema` false passes over averaged weights.

    Raises CheckpointError when there is none.
    """
    if not isinstance(held, dict):
        raise CheckpointError(
            f"{path} holds a {type(held).__name__}, expected a dictionary of tensors; save model.state_dict()"
        )
    entries = (*AVERAGED, *TRAINED) if ema else TRAINED
    wrapper = next((name for name in entries if isinstance(held.get(name), dict)), None)
    state, dropped = held, {}
    if wrapper is not None:
        state = held[wrapper]
        dropped = {name: _training_state(name) for name in map(str, held) if name != wrapper}
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    dropped |= {
        str(name): f"not a tensor: {type(value).__name__}"
        for name, value in state.items()
        if not isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors; its entries are {', '.join(sorted(map(str, held)))[:300] or 'none'}; expected "
            f"a state dict, bare or under {', '.join((*AVERAGED, *TRAINED))}"
        )
    prefix = ""
    while found := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), None):
        tensors = {key.removeprefix(found): value for key, value in tensors.items()}
        prefix += found
    return Unwrapped(tensors, wrapper, prefix, dropped)


def _training_state(name: str) -> str:
    if name in AVERAGED:
        return "averaged weights, passed over by --no-ema"
    if name in TRAINED:
        return "trained weights; the averaged ones beside them were taken (--no-ema takes these)"
    return "training state beside the weights"
