"""The promise that every input holds: `check` runs one case in a folder of its own and names what is broken.

No traceback; exit status 0, 1, 2 or 130, with a message unless it is 0; no file changed outside the output; nothing
left under the output's name by a command that failed; nothing executed; and, where it can be known, the right answer.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import run
from hypothesis import strategies as st

from morvit_deploy.errors import MorvitError

STATUSES = (0, 1, 2, 130)
OUT = "out"  # the name of every output
LIMIT_S = 120.0  # a case that takes longer hangs; other programs may slow the machine down
EXECUTED = "executed"  # the file that a payload would create


@dataclass(frozen=True)
class Case:
    """Files to write over the seeds, None to delete one, and the words of the command line."""

    words: tuple[str, ...]
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # what the right answer is known from; JSON


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    output: str = ""  # stdout
    messages: str = ""  # stderr
    traceback: str = ""  # of an error that was not raised on purpose


Act = Callable[[Path, Case], Ended]  # in the folder of the case
Wrong = Callable[[Path, Case, Ended, Path], str]  # after status 0; the last is the folder of the seeds


def command(folder: Path, case: Case) -> Ended:
    """Run the command line in this process."""
    result = run(*case.words)
    error = result.exception
    if error is None or isinstance(error, SystemExit):
        return Ended(result.exit_code, result.stdout, result.stderr)
    return Ended(result.exit_code, result.stdout, result.stderr, "".join(traceback.format_exception(error)))


def called(function: Callable[[], object]) -> Ended:
    """Call a function of the library: status 2 for an error that it raises on purpose."""
    try:
        return Ended(0, output=str(function()))
    except MorvitError as error:
        return Ended(error.exit_status, messages=f"error: {error}")
    except Exception:  # what the promise excludes
        return Ended(1, traceback=traceback.format_exc())


def any_answer(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """For kinds whose right answer is not known."""
    return ""


@dataclass(frozen=True)
class Kind:
    """A kind of input: what it needs of the seeds, its one strategy, and its part of a long run."""

    name: str
    part: int  # cases of 10,000
    seeds: tuple[str, ...]  # files and folders that are copied into the folder of a case
    cases: Callable[[Path], st.SearchStrategy[Case]]  # from the folder of the seeds
    wrong: Wrong = any_answer
    act: Act = command
    outputs: tuple[str, ...] = (OUT,)
    names_outputs: bool = False  # may a word of the command line name another one, that is not there before?
    sound: tuple[str, ...] = ()  # the command line that accepts the seeds as they are


@dataclass(frozen=True)
class Verdict:
    """The exit status of a case, and what it broke of the promise, if anything."""

    status: int
    broken: str = ""


def check(kind: Kind, case: Case, seeds: Path) -> Verdict:
    """Run a case in a copy of the seeds that it needs."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch, _in(Path(scratch)) as folder:
        _prepare(kind, case, seeds, folder)
        before = _snapshot(folder)
        try:
            with _time_limit():
                ended = kind.act(folder, case)
        except TimeoutError:
            return Verdict(-1, f"no answer after {LIMIT_S:.0f} s")
        return Verdict(ended.status, _broken(kind, case, ended, before, folder, seeds))


def _broken(kind: Kind, case: Case, ended: Ended, before: dict[str, str], folder: Path, seeds: Path) -> str:
    """What is broken of the promise; empty if nothing is."""
    if ended.traceback or "Traceback (most recent call last)" in ended.messages:
        return f"traceback\n{ended.traceback or ended.messages}"
    if ended.status not in STATUSES:
        return f"exit status {ended.status}"
    if ended.status and "error" not in ended.messages.lower():
        return f"exit status {ended.status} without a message"
    after = _snapshot(folder)
    if any(Path(name).name == EXECUTED for name in after):
        return "executed what the input holds"
    outputs = [*kind.outputs, *_named(case, kind, before, after)]
    if changed := sorted({name for name, _ in before.items() ^ after.items() if not _is_in(name, outputs)}):
        return f"touched {', '.join(changed)}"
    if ended.status == 2 and (left := sorted({*after} - {*before})):
        return f"refused, and left {', '.join(left)}"
    return "" if ended.status else kind.wrong(folder, case, ended, seeds)


def _named(case: Case, kind: Kind, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """New names that the command line mentions, as the value of an option that is not `-o`, or by a slip."""
    words = [os.path.normpath(word) for word in case.words if word] if kind.names_outputs else []
    if "." in words:
        words += [name for name in after if "/" not in name]
    new = [word for word in words if word not in before and not word.startswith(("/", ".."))]
    return [*new, *(f"{word}.pareto.{suffix}" for word in new for suffix in ("json", "png"))]


def _is_in(name: str, outputs: list[str]) -> bool:
    return any(name == output or name.startswith(f"{output}/") for output in outputs)


def _prepare(kind: Kind, case: Case, seeds: Path, folder: Path) -> None:
    """Copy the seeds and write the files of the case."""
    (folder / "tmp").mkdir()
    for name in kind.seeds:
        copy = shutil.copytree if (seeds / name).is_dir() else shutil.copy2
        copy(seeds / name, folder / name)
    for name, content in case.files.items():
        path = folder / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _snapshot(folder: Path) -> dict[str, str]:
    """Every file and folder below with its type and content."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else ""
        found[str(path.relative_to(folder))] = f"{stat.S_IFMT(mode)} {content}"
    return {
        name: what for name, what in found.items() if not name.startswith("tmp/torch")
    }  # a cache of PyTorch


@contextmanager
def _in(folder: Path) -> Iterator[Path]:
    """Work in a folder whose `tmp` takes temporary files; library warnings are no concern of a user's input."""
    here, temporary = Path.cwd(), tempfile.tempdir
    os.chdir(folder)
    tempfile.tempdir = str(folder / "tmp")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield folder
    finally:
        os.chdir(here)
        tempfile.tempdir = temporary


@contextmanager
def _time_limit() -> Iterator[None]:
    """TimeoutError in the main thread after LIMIT_S."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
