"""The command line in general, and `init`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import refused, run

COMMANDS = [
    "doctor",
    "init",
    "convert",
    "inspect",
    "calibrate",
    "export",
    "build",
    "verify",
    "predict",
    "bench",
    "compare",
    "report",
    "demo",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout and "--help" in result.stdout


def test_help_lists_the_commands_and_the_exit_statuses() -> None:
    result = run("--help")
    assert all(command in result.stdout for command in COMMANDS)
    assert "Exit status: 0" in " ".join(result.stdout.split())
    assert run().exit_code == 2, "no command is bad usage"


def test_version() -> None:
    assert re.fullmatch(r"morvit-deploy \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize(
    "words", [["nonsense"], ["export", "--nonsense"], ["init"], ["predict"]], ids=" ".join
)
def test_bad_usage_is_exit_2(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Usage" in result.stderr and "Traceback" not in result.stderr


def test_init_writes_a_checkpoint(inside: Path) -> None:
    result = run("init", "--preset", "morvit_tiny_digits", "-o", "a folder/new")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (inside / "a folder/new").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert "parameters" in result.stdout


def test_init_is_seeded(inside: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("init", "--preset", "morvit_tiny_digits", "-o", name, "--seed", seed)
    a, b, c = ((inside / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_init_lists_and_refuses(inside: Path) -> None:
    assert "vit_b16" in run("init", "--help").stdout
    assert "expected one of: morvit_b16" in refused("init", "--preset", "resnet50", "-o", "out")
    (inside / "out").mkdir()
    assert "--force" in refused("init", "--preset", "morvit_tiny_digits", "-o", "out")
    assert [path.name for path in inside.iterdir()] == ["out"]
