"""Consoles of every kind: few signs, no colours, no width, no home, a pipe, a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import refused, run
from typer.testing import CliRunner

from morvit_deploy.cli import app
from morvit_deploy.layout import len_of, pieces, show_in, table_lines, wrapped

MAIN = "from morvit_deploy.cli import main; main()"
PTY = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"  # runs a program on a terminal


def program(
    *words: object, terminal: bool = False, **environment: str | None
) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own; None takes a variable away."""
    line = [sys.executable, "-c", MAIN, *map(str, words)]
    variables = {**os.environ, "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(
        [sys.executable, "-c", PTY, *line] if terminal else line,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in variables.items() if value is not None},
        check=False,
    )


def test_named_work_has_its_name_before_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from morvit_deploy.cli.shared.console import working_on_several

    with working_on_several() as (tell, share):
        for name in ("pi1", "pi2"):
            for block in (1, 2):
                tell(name, f"block {block} of 2")
                share(name, block / 2)
    assert capsys.readouterr().err.splitlines() == ["pi1: block 1 of 2 ...", "pi2: block 1 of 2 ..."]


# --- signs


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("2.26× |Δ| … 1–2 → 3", "ascii", "2.26x |d| ... 1-2 -> 3"),
        ("2.26× |Δ|", "latin-1", "2.26× |d|"),
        ("█ ─ ≤", "cp437", "█ ─ ≤"),
        ("café naïve 猫", "ascii", "cafe naive ?"),
        ("2.26× |Δ| …", "utf-8", "2.26× |Δ| …"),
    ],
)
def test_stand_ins(text: str, encoding: str, shown: str) -> None:
    assert show_in(text, encoding) == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_every_message_can_be_shown(tiny_bundle: Path, tmp_path: Path, encoding: str) -> None:
    bad = tmp_path / "猫.png"
    bad.write_bytes(b"no picture")
    for words, status in ((("export", "--help"), 0), (("predict", tiny_bundle, bad), 2)):
        done = program(*words, PYTHONIOENCODING=encoding, COLUMNS="80")
        assert done.returncode == status, done.stderr
        (done.stdout + done.stderr).decode(encoding)
        assert b"Traceback" not in done.stderr
    assert "is not an image" in done.stderr.decode(encoding) and "?.png" in done.stderr.decode(encoding)


def test_json_escapes_what_the_console_lacks(
    tiny_bundle: Path, image_files: list[Path], tmp_path: Path
) -> None:
    picture = tmp_path / "größe.png"
    picture.write_bytes(image_files[0].read_bytes())
    done = program("predict", tiny_bundle, picture, "--json", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout.decode("ascii"))["predictions"][0]["image"] == str(picture)


def test_no_home_no_colours_and_a_dumb_terminal(tiny_bundle: Path, image_files: list[Path]) -> None:
    words = ("predict", tiny_bundle, image_files[0])
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        done = program(*words, terminal=True, HOME=None, COLUMNS="80", **variables)
        assert done.returncode == 0, done.stdout
        assert b"probability" in done.stdout
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7][;m]", done.stdout), "no colour"
    done = program("bench", "--device", "toaster", terminal=True, NO_COLOR="1")
    assert b"error: got device 'toaster'" in done.stdout


# --- width


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", ["", *(command.name for command in app.registered_commands)])
def test_help_fits_and_breaks_no_word(command: str, width: int) -> None:
    words = [command] if command else []
    text, wide = (program_help(*words, columns=columns) for columns in (width, 1000))
    assert all(len(line) <= width for line in text.splitlines() if not line.startswith("  morvit-deploy "))
    assert set(text.split()) <= set(wide.split()) | set(wide.replace("|", "| ").split()), "a word was broken"
    assert "…" not in text.replace("N,N,…", "").replace("K1,K2,…", ""), "nothing is cut off"
    assert "<bool>" not in text and "-h, --help" in text
    if command:
        assert re.search(r"^Examples?:\n  morvit-deploy " + command, text, re.M)


def program_help(*words: str, columns: int) -> str:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, [*words, "-h"]).stdout


def test_columns_are_respected_in_a_pipe(tiny_bundle: Path, image_files: list[Path]) -> None:
    for columns in ("80", "120", None):
        done = program("predict", tiny_bundle, *image_files, COLUMNS=columns, TERM="xterm")
        lines = done.stdout.decode().splitlines()
        assert max(map(len, lines)) <= max(int(columns or 80), 4 + len(str(image_files[0])))


def test_a_message_on_a_terminal_is_wrapped_between_words() -> None:
    done = program("bench", "--device", "jetson", terminal=True, COLUMNS="60", NO_COLOR="1")
    lines = done.stdout.decode().replace("\r", "").splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 60
    whole = program("bench", "--device", "jetson").stderr.decode()
    assert " ".join(lines).split() == whole.split(), "the same words"


def test_wrapping_keeps_numbers_beside_their_units() -> None:
    assert pieces("1.5 MB in 3 ms, 20 % of 26.18 MMACs") == [
        "1.5 MB",
        "in",
        "3 ms,",
        "20 %",
        "of",
        "26.18 MMACs",
    ]
    assert wrapped("about 1.5 MB", 9) == ["about", "1.5 MB"]
    assert len_of("猫a") == 3


def test_rows_that_do_not_fit_become_blocks() -> None:
    columns, rows = (
        ("name", "first value", "second value"),
        [("one", "1.5 MB", ""), ("two", "2 ms", "many words here")],
    )
    assert table_lines(columns, rows, (1,), 60)[0].split() == ["name", "first", "value", "second", "value"]
    assert table_lines(columns, rows, (1, 2), 18) == [
        *("", "one", "  first value   1.5 MB"),
        *("", "two", "  first value   2 ms", "  second value  many", " " * 16 + "words", " " * 16 + "here"),
    ]


# --- what is done, and what is left


def test_stages_are_lines_in_a_pipe_and_a_bar_on_a_terminal(
    tiny_bundle: Path, image_files: list[Path]
) -> None:
    words = ("predict", tiny_bundle, *image_files)
    done = program(*words, "--json")
    assert json.loads(done.stdout)["errors"] == []
    assert done.stderr.decode().splitlines()[:2] == [
        "opening the bundle ...",
        "classifying images, 0 of 6 ...",
    ]
    shown = program(*words, terminal=True, COLUMNS="100", TERM="xterm").stdout.decode()
    assert "opening the bundle" in shown and "left:" in shown and " ...\r\n" not in shown


# --- near misses


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("export", "--target", "tensorrt"), "did you mean 'trt'?"),
        (("export", "--target", "coreML"), "did you mean 'coreml'?"),
        (("export", "--target", "onnxruntime"), "did you mean 'onnx'?"),
        (("export", "--precision", "half"), "did you mean 'fp16'?"),
        (("export", "--precision", "bf-16"), "did you mean 'bf16'?"),
        (("bench", "--device", "gpu"), "did you mean 'cuda'?"),
        (("bench", "--device", "phone"), "did you mean 'iphone'?"),
        (("bench", "--device", "jetsn"), "did you mean 'jetson'?"),
        (("init", "--preset", "vit-b16"), "did you mean 'vit_b16'?"),
        (("exprot",), "Did you mean 'export'?"),
        (("export", "--precison", "fp16"), "--precision"),
    ],
)
def test_near_misses(inside: Path, words: tuple[str, ...], meant: str) -> None:
    assert meant in refused(*words)


def test_no_guess_where_nothing_is_close() -> None:
    assert "did you mean" not in refused("bench", "--device", "toaster")
    assert run("bench", "--device", "toaster").exit_code == 2
