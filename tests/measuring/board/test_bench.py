"""The board's bench up to the session, which runs the local worker; over SSH itself see `test_ssh`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession

from morvit_deploy.errors import LostError, ParityError
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.board import bench as board_bench
from morvit_deploy.remote.host import Host
from morvit_deploy.timing.loop import MIN_RUNS

QUICK: dict[str, Any] = {"threads": 1, "runs": MIN_RUNS, "blocks": 2, "warmup": 1, "starts": 1}


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    """The class of the session, whose attributes may be changed."""
    own: type[FakeSession] = type("Own", (FakeSession,), {})
    monkeypatch.setattr(board_bench, "Session", own)
    return own


def measure(bundle: Path) -> Any:
    return bench(bundle, device="ssh", host=Host("board"), **QUICK)


@pytest.mark.usefixtures("session")
def test_conditions_and_parity_are_the_device_s(tiny_bundle: Path) -> None:
    result = measure(tiny_bundle)
    (measured,) = result.measured
    assert [len(block.ms) for block in measured.blocks] == [MIN_RUNS] * 2
    known = result.conditions
    assert set(known["device_conditions"]) == {"before", "after"} and known["host"] == "board"
    parity = known["parity"][str(tiny_bundle)]
    assert (parity["images"], parity["class_flips"], parity["apart"]) == (16, 0, 0)


def test_other_logits_are_not_measured(tiny_bundle: Path, session: type[FakeSession]) -> None:
    def spoil(answer: dict[str, Any]) -> dict[str, Any]:
        assert "ms" not in answer, "nothing is timed"
        return answer | {"max_abs": [1.0] * 16}

    session.spoil = staticmethod(spoil)
    with pytest.raises(ParityError, match="returns other logits on board than expected"):
        measure(tiny_bundle)


def test_a_lost_device_leaves_its_whole_blocks(tiny_bundle: Path, session: type[FakeSession]) -> None:
    session.lost_after = 2  # parity and a block
    with pytest.raises(LostError) as error:
        measure(tiny_bundle)
    partial = error.value.partial
    assert partial is not None and partial.partial == "board was lost while running"
    assert [len(one.blocks) for one in partial.measured] == [1]
    assert partial.conditions["runs_per_block"] == MIN_RUNS
