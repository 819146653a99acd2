"""A training run that was interrupted ends with the same weights; a file of another run is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from places import EXAMPLES
from torch import Generator, Tensor, nn

from morvit_deploy.errors import MorvitError


@pytest.fixture(autouse=True)
def examples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are scripts, not a package."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    import resume

    monkeypatch.setattr(resume, "EVERY", 2)


class Interrupted(Exception):
    """What a user's Ctrl-C does to a run."""


def trained(state: Path | None, stop: int | None = None, steps: int = 6) -> Tensor:
    """The weights of a block after a run of six steps, whose loss draws from both generators."""
    from optimise import Recipe, train

    torch.manual_seed(0)
    model = nn.ModuleDict({"cycle": nn.Linear(3, 3), "head": nn.Linear(3, 1)})  # for Muon, for AdamW

    def objective(done: float, generator: Generator) -> Tensor:
        hidden = model["cycle"](torch.randn(4, 3, generator=generator))
        return (model["head"](hidden) + torch.randn(4, 1)).square().mean()

    def tick(_text: str, done: int) -> None:
        if done == stop:
            raise Interrupted

    recipe = Recipe(steps=steps, warmup=1)
    return train(model, objective, recipe, seed=1, tick=tick, state=state)["cycle"].weight


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    with pytest.raises(Interrupted):
        trained(state, stop=5)
    assert torch.equal(trained(state), trained(None))


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    with pytest.raises(Interrupted):
        trained(state, stop=3)
    with pytest.raises(MorvitError, match=r"state.pt: got steps 6, expected 7"):
        trained(state, steps=7)


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04"], ids=["empty", "text", "half a zip"])
def test_another_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    state = tmp_path / "state.pt"
    state.write_bytes(content)
    with pytest.raises(MorvitError, match="not a state of a training run"):
        trained(state)
    assert state.read_bytes() == content
