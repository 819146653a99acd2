"""A short run of every kind, and proof that the promise notices each way to break it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import promise
import pytest
from hypothesis import strategies as st
from promise import OUT, Case, Ended, Kind, called, check
from run import KINDS, explore, how_to_replay, keep, kept
from seeds import make_seeds

from morvit_deploy.errors import ConfigError

PART = 300  # of the inputs of a long run: two to eight of each kind


@pytest.fixture(scope="module")
def seeds(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seeds(tmp_path_factory.mktemp("seeds"), tiny_bundle)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_mutated_inputs_hold_the_promise(kind: Kind, seeds: Path, tmp_path: Path) -> None:
    for case, verdict in explore(kind, seeds, max(2, kind.part // PART)):
        if verdict.broken:
            folder = keep(kind, case, verdict, 1, tmp_path)
            pytest.fail(f"{' '.join(case.words)}: {verdict.broken}\n{how_to_replay(folder)}")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_sound_inputs_are_accepted(kind: Kind, seeds: Path) -> None:
    """Otherwise nothing that is made of them would be."""
    verdict = check(kind, Case(kind.sound), seeds)
    assert not verdict.broken and verdict.status == 0


def nothing(folder: Path, case: Case) -> Ended:
    return Ended(0)


PLAIN = Kind("plain", 1, ("plan.json",), lambda seeds: st.just(Case(())), act=nothing)


def acts(act: Callable[[Path], Ended]) -> Kind:
    return replace(PLAIN, act=lambda folder, case: act(folder))


def writes(name: str, status: int = 0) -> Callable[[Path], Ended]:
    def act(folder: Path) -> Ended:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("other")
        return Ended(status, messages="error: refused")

    return act


def raises(error: BaseException) -> Callable[[Path], Ended]:
    def act(folder: Path) -> Ended:
        def fail() -> None:
            raise error

        return called(fail)

    return act


def waits(folder: Path) -> Ended:
    time.sleep(5)
    return Ended(0)


def links(folder: Path) -> Ended:
    (folder / "plan.json").unlink()
    (folder / "plan.json").symlink_to("/etc")
    return Ended(0)


def removes(folder: Path) -> Ended:
    (folder / "plan.json").unlink()
    return Ended(0)


BROKEN: dict[str, tuple[Callable[[Path], Ended], str]] = {
    "an error of Python": (raises(KeyError("x")), "traceback"),
    "a printed traceback": (lambda f: Ended(2, messages="Traceback (most recent call last):"), "traceback"),
    "another status": (lambda f: Ended(3, messages="error: x"), "exit status 3"),
    "killed": (lambda f: Ended(-9, messages="error: x"), "exit status -9"),
    "no message": (lambda f: Ended(2), "exit status 2 without a message"),
    "an input changed": (writes("plan.json"), "touched plan.json"),
    "an input removed": (removes, "touched plan.json"),
    "an input replaced by a link": (links, "touched plan.json"),
    "a file beside": (writes("beside.txt"), "touched beside.txt"),
    "a temporary file": (writes("tmp/morvit-x"), "touched tmp/morvit-x"),
    "a partial folder": (writes(".out.partial-1/x"), "touched .out.partial-1"),
    "half an output": (writes(f"{OUT}/config.json", status=2), "refused, and left out, out/config.json"),
    "executed": (writes("executed"), "executed what the input holds"),
    "hangs": (waits, "no answer after"),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("act", "what"), BROKEN.values(), ids=BROKEN)
def test_the_promise_notices(
    act: Callable[[Path], Ended], what: str, seeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promise, "LIMIT_S", 1.0)
    assert what in check(acts(act), Case(()), seeds).broken


def refuses(folder: Path) -> Ended:
    return Ended(2, messages="error: refused")


ALLOWED = {
    "output": writes(f"{OUT}/config.json"),
    "refused": refuses,
    "raised on purpose": raises(ConfigError("x")),
}


@pytest.mark.parametrize("act", ALLOWED.values(), ids=ALLOWED)
def test_what_the_promise_allows(act: Callable[[Path], Ended], seeds: Path) -> None:
    assert not check(acts(act), Case(()), seeds).broken


def test_answers_are_judged_after_success_alone(seeds: Path) -> None:
    kind = replace(PLAIN, wrong=lambda folder, case, ended, seeds: "wrong")
    assert check(kind, Case(()), seeds).broken == "wrong"
    assert not check(replace(kind, act=lambda folder, case: refuses(folder)), Case(()), seeds).broken


def test_a_case_is_kept_and_read_again(tmp_path: Path) -> None:
    kind = KINDS["config"]
    case = Case(("inspect", "x"), {"checkpoint/config.json": b"\xff{", "gone": None}, {"same": True})
    folder = keep(kind, case, promise.Verdict(1, "traceback"), 1, tmp_path)
    assert kept(folder) == (kind, case)
    assert (folder / "files" / "checkpoint" / "config.json").read_bytes() == b"\xff{"
