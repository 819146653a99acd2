"""Whatever becomes of the standard streams, the exit status is that of the command, and nobody sees a traceback."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import refused

from morvit_deploy.cli.shared import interrupts
from morvit_deploy.cli.shared.streams import Stream

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell and its signals")
MAIN = "from morvit_deploy.cli import main; main()"
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def shell(
    words: str, redirection: str = "", *, before: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `morvit-deploy WORDS` in a shell; `before` is Python code to run first."""
    code = shlex.quote(f"{before}\n{MAIN}")
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shlex.quote(sys.executable)} -c {code} {words} {redirection}"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=200,
    )


def check_clean(done: subprocess.CompletedProcess[str], status: int) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("redirection", ["| head -0", "| head -1", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "status"), [("--help", 0), ("nonsense", 2)])
def test_closed_streams_keep_the_status(redirection: str, words: str, status: int) -> None:
    check_clean(shell(words, redirection), status)


@needs_full
@pytest.mark.parametrize("words", ["--version", "export --help"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_result_that_cannot_be_printed_is_said_and_is_exit_2(words: str, encoding: str) -> None:
    done = shell(words, "> /dev/full", PYTHONIOENCODING=encoding)
    check_clean(done, 2)
    assert "could not be printed: No space left on device" in done.stderr


@needs_full
def test_a_full_stderr_changes_nothing() -> None:
    check_clean(shell("--version", "2> /dev/full"), 0)
    check_clean(shell("nonsense", "> /dev/full 2> /dev/full"), 2)


@needs_full
def test_after_success_the_output_is_complete_and_said_to_be(inside: Path) -> None:
    """Exit status 1 would read as a failed check."""
    done = shell("init --preset morvit_tiny_digits -o größer", "> /dev/full")
    check_clean(done, 2)
    assert "output files are complete" in done.stderr
    assert sorted(path.name for path in (inside / "größer").iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in inside.iterdir()] == ["größer"]


FAILS = """
import sys
import typer
import morvit_deploy.cli
def fail(self, ctx):
    print("a check failed")
    raise typer.Exit(1)
sys.modules["morvit_deploy.cli.app"].Command.invoke = fail
"""


@needs_full
def test_a_failed_check_stays_exit_1() -> None:
    check_clean(shell("doctor", "> /dev/full", before=FAILS), 1)


def on_import(module: str, number: str) -> str:
    """Code that sends this process a signal when `module` is imported."""
    return f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("module", ["morvit_deploy.cli.app", "typer", "morvit_deploy.cli.demo"])
def test_an_interrupt_while_loading_is_exit_130(module: str) -> None:
    done = shell("--help", before=on_import(module, "SIGINT"))
    check_clean(done, 130)
    assert done.stdout == ""
    assert "interrupted" in done.stderr


@pytest.mark.parametrize(
    ("number", "module"),
    [("SIGINT", "torch.nn"), ("SIGTERM", "torch"), ("SIGHUP", "morvit_deploy.model.checkpoint")],
)
def test_a_signal_while_working_is_exit_130_and_leaves_nothing(
    inside: Path, number: str, module: str
) -> None:
    done = shell("init --preset morvit_tiny_digits -o out", before=on_import(module, number))
    check_clean(done, 130)
    assert "interrupted; nothing half-written was left behind" in done.stderr
    assert not list(inside.iterdir())


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nohup` ignores SIGHUP."""
    installed: dict[int, object] = {}
    monkeypatch.setattr(
        signal, "getsignal", lambda number: signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL
    )
    monkeypatch.setattr(signal, "signal", installed.__setitem__)
    interrupts.clean_up_on_signals()
    assert list(installed) == [signal.SIGTERM]


@needs_full
def test_a_stream_remembers_the_first_error() -> None:
    with Path("/dev/full").open("w") as file:
        stream = Stream(file)
        assert stream.write("héllo\n") == len("héllo\n")
        assert not stream.isatty()
        stream.flush()
        assert stream.lost is not None
        assert stream.write("more") == len("more")
        stream.flush()


LONG = "n" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["export", LONG],
        ["export", "{checkpoint}", "-o", LONG],
        ["export", "{checkpoint}", "--images", LONG, "-o", "x"],
        ["export", "{checkpoint}", "--plan", LONG, "-o", "x"],
        ["convert", LONG, "-o", "x"],
        ["predict", LONG],
        ["verify", LONG, "--checkpoint", "{checkpoint}"],
        ["inspect", LONG],
        ["calibrate", "{checkpoint}", "--images", LONG],
        ["calibrate", "{checkpoint}", "--images", ".", "-o", LONG],
        ["bench", LONG],
        ["build", LONG],
        ["demo", "--examples", LONG],
        ["init", "--preset", "morvit_tiny_digits", "-o", LONG],
        ["init", "--preset", "morvit_tiny_digits", "-o", "--force"],
        ["init", "--preset", "morvit_tiny_digits", "-o", "~/x"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_names_that_cannot_be(tiny_checkpoint: Path, inside: Path, words: list[str]) -> None:
    refused(*(word.format(checkpoint=tiny_checkpoint) for word in words))
    assert not list(inside.iterdir())


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "weights.bin"), MemoryError()])
def test_errors_of_the_system_are_one_message(
    monkeypatch: pytest.MonkeyPatch, inside: Path, error: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("morvit_deploy.model.checkpoint.init_model", fail)
    message = refused("init", "--preset", "morvit_tiny_digits", "-o", "out")
    assert ("weights.bin: Permission denied" if error.args else "out of memory") in message


def test_a_runtime_that_fails_while_running(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, image_files: list[Path]
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("CUDA error: device lost")

    monkeypatch.setattr("morvit_deploy.agent.run_ort.OrtRunner.run", fail)
    message = refused("predict", tiny_bundle, image_files[0])
    assert "failed while it ran" in message and "CUDA error: device lost" in message
