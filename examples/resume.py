"""A training run on disk, so that it can go on where it was interrupted, with the same result."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Generator

from morvit_deploy.errors import MorvitError
from morvit_deploy.files import any_file, write_bytes

EVERY = 200  # steps from one save to the next


class Stateful(Protocol):
    """A module or an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Any) -> Any: ...


@dataclass(frozen=True)
class Run:
    """All that changes during a run. Besides, torch's own generator draws the routers' noise."""

    parts: Sequence[Stateful]  # model, averaged model, optimisers
    generator: Generator
    settings: dict[str, Any]  # of the run: a state of other settings is refused
    file: Path | None

    def save(self, step: int) -> None:
        """Write the state after so many steps, if it is due."""
        if self.file is None or step % EVERY:
            return
        state = {
            "step": step,
            "settings": self.settings,
            "parts": [part.state_dict() for part in self.parts],
            "generators": [self.generator.get_state(), torch.get_rng_state()],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.file, buffer.getvalue(), replaces=any_file)

    def load(self) -> int:
        """The number of steps that the file's run has done; 0 without a file. MorvitError for another run's."""
        if self.file is None or not self.file.exists():
            return 0
        state = _read(self.file)
        for name, value in self.settings.items():
            if (got := state["settings"].get(name)) != value:
                raise MorvitError(
                    f"{self.file}: got {name} {got}, expected {value}: a run goes on with the settings that it began "
                    "with; give those, or another --state"
                )
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        own, torchs = state["generators"]
        self.generator.set_state(own)
        torch.set_rng_state(torchs)
        return int(state["step"])


def _read(file: Path) -> dict[str, Any]:
    """The saved dictionary. Nothing in the file is executed."""
    try:
        state = torch.load(file, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise MorvitError(f"{file}: not a state of a training run ({error}); give another --state") from None
    if not isinstance(state, dict) or not {"step", "settings", "parts", "generators"} <= state.keys():
        raise MorvitError(f"{file}: not a state of a training run; give another --state")
    return state
