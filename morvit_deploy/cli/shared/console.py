"""The console: results on stdout, remarks on stderr, signs that it can show, and how far the work is."""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

from morvit_deploy.layout import stand_in, wrapped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from morvit_deploy.report import Report

STAND_INS = "morvit-stand-ins"  # the handler of what a console's encoding does not have


def stand_in_signs() -> None:
    """Let stdout and stderr show × as x where their encoding lacks it, instead of failing."""

    def handle(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        return "".join(map(stand_in, error.object[error.start : error.end])), error.end

    codecs.register_error(STAND_INS, handle)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=STAND_INS)


def out_width() -> int:
    """Columns of stdout: of COLUMNS, else of the terminal, else 80."""
    return shutil.get_terminal_size().columns


def stdout() -> Console:
    """For results."""
    from rich.console import Console

    return Console()


def stderr() -> Console:
    """For progress and remarks, so that stdout stays clean."""
    from rich.console import Console

    return Console(stderr=True)


def say(*lines: str) -> None:
    """Print lines on stdout; Click's echo would write UTF-8 to a console of ASCII."""
    print("\n".join(lines))


def emit(report: Report, data: Any, as_json: bool) -> None:
    """Print the result on stdout: tables for a person, one JSON document for a program."""
    console = stdout()
    if as_json:  # what the console lacks is escaped, not replaced
        ascii = not console.encoding.startswith("utf")
        text = json.dumps(data, indent=2, ensure_ascii=ascii, allow_nan=False)
        say(text.encode(errors="backslashreplace").decode())  # of a name that is not UTF-8: JSON's own escape
    else:
        report.show(console)


def heading(text: str) -> str:
    """Bold where stdout is a terminal that shows it."""
    return typer.style(text, bold=True) if _is_coloured(sys.stdout) else text


def remark(kind: str, text: str, colour: str | None = None) -> None:
    """A line `kind: text` on stderr; on a terminal it is wrapped between words."""
    if sys.stderr.isatty():
        lines = wrapped(f"{kind}: {text}", shutil.get_terminal_size().columns)
        head, text = f"{kind}:", "\n".join(lines).removeprefix(f"{kind}:").lstrip(" ")
    else:
        head = f"{kind}:"
    shown = typer.style(head, fg=colour, bold=True) if colour and _is_coloured(sys.stderr) else head
    print(f"{shown} {text}", file=sys.stderr)


def note(text: str) -> None:
    """What the user may want to know."""
    remark("note", text)


def warn(sentences: Iterable[str]) -> None:
    """Each in a line of its own."""
    for sentence in sentences:
        remark("warning", sentence, "yellow")


def _is_coloured(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


Tell = Callable[[str], None]
Share = Callable[[float], None]


@contextmanager
def working(first: str) -> Iterator[tuple[Tell, Share]]:
    """Tellers of the stage and of the share of it that is done, 0 to 1, on stderr.

    On a terminal a bar with the time left, which disappears at the end; elsewhere a line for each stage.
    """
    console = stderr()
    if not console.is_terminal or console.is_dumb_terminal:
        yield _lines(first), lambda share: None
        return
    with _bar(console) as bar:
        task = bar.add_task(first, total=None)

        def tell(stage: str) -> None:
            if _gist(stage) != _gist(bar.tasks[0].description):
                bar.reset(task, total=None)  # of unknown length
            bar.update(task, description=stage)

        yield tell, lambda share: bar.update(task, total=1.0, completed=share)


@contextmanager
def working_on_several() -> Iterator[tuple[Callable[[str, str], None], Callable[[str, float], None]]]:
    """As `working`, for things with names: each has a bar of its own, or its name before its lines."""
    console = stderr()
    if not console.is_terminal or console.is_dumb_terminal:
        lines: dict[str, Tell] = {}

        def tell_line(name: str, stage: str) -> None:
            if name in lines:
                lines[name](stage)
            else:
                lines[name] = _lines(stage, f"{name}: ")

        yield tell_line, lambda name, share: None
        return
    with _bar(console) as bar:
        tasks: dict[str, Any] = {}

        def tell(name: str, stage: str) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=None)
            bar.update(tasks[name], description=f"{name}: {stage}")

        yield tell, lambda name, share: bar.update(tasks[name], total=1.0, completed=share)


def _lines(first: str, before: str = "") -> Tell:
    """A line for each stage, once: not for each number in it."""
    seen: set[str] = set()

    def tell(stage: str) -> None:
        if (gist := _gist(stage)) not in seen:
            seen.add(gist)
            print(f"{before}{stage} ...", file=sys.stderr, flush=True)

    tell(first)
    return tell


def _gist(stage: str) -> str:
    return re.sub(r"\d[\d.,]*", "#", stage)


def _bar(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    spinner = SpinnerColumn("dots" if console.encoding.startswith("utf") else "line")
    flexible = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # the numbers keep their room
    stage = TextColumn("{task.description}", markup=False, table_column=flexible)
    numbers = (
        BarColumn(16),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    return Progress(spinner, stage, *numbers, console=console, transient=True, expand=True)
