"""Options that are derived from a function's signature and its groups."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from commands import run
from places import ROOT
from typer.testing import CliRunner, Result

from morvit_deploy.cli.shared.derived import Arg, Derived, DerivedCommand, Group
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help, Option, option_of

SCREEN = 50  # lines of a function


@dataclass(frozen=True)
class Size(Group):
    panel = "Size"
    width: Annotated[int, Help("Columns.", least=1, show_default=True)] = 3
    paths: Annotated[tuple[Path, ...], Help("May be repeated.")] = ()
    kind: Annotated[Literal["one", "two"] | None, Help("Which.", also={"first": "one"})] = None
    plain: Annotated[bool, Help("Without colours.")] = False


@dataclass(frozen=True)
class Rare(Group):
    panel, hidden = "Rare", "see elsewhere"
    rare: Annotated[float | None, Help("Seldom needed.")] = None


def loose() -> tuple[Option, ...]:
    return (option_of("with_depth", Annotated[bool, Help("Depth too.")], False),)


SEEN: dict[str, Any] = {}


def act(
    source: Annotated[Path, Arg("What to read.", "SOURCE")],
    *,
    size: Size,
    rare: Rare,
    options: Annotated[dict[str, Any], Derived(loose)],
    seed: Annotated[int, Help("Seed.", short="-s")] = 7,
) -> None:
    """Act on something."""
    SEEN.update(source=source, size=size, rare=rare, options=options, seed=seed)


def call(*words: str) -> Result:
    SEEN.clear()
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    cls = type("ActCommand", (DerivedCommand,), {"function": staticmethod(act)})
    app.command(cls=cls, help=act.__doc__)(lambda: None)
    return CliRunner().invoke(app, [*words])


def test_a_group_is_filled_with_what_was_given() -> None:
    assert call("a", "--paths", "b", "--paths", "c", "--kind", "two", "--plain", "--rare", "2").exit_code == 0
    assert SEEN["size"] == Size(3, (Path("b"), Path("c")), "two", True)
    assert SEEN["source"] == Path("a") and SEEN["rare"] == Rare(2.0)
    assert SEEN["options"] == {} and SEEN["seed"] == 7


def test_the_functions_own_defaults_are_kept() -> None:
    assert call("a", "--with-depth", "-s", "1").exit_code == 0
    assert SEEN["size"] == Size() and SEEN["rare"] == Rare()
    assert SEEN["options"] == {"with_depth": True} and SEEN["seed"] == 1


def test_a_choice_that_is_none_suggests_one() -> None:
    error = call("a", "--kind", "first").exception
    assert isinstance(error, ConfigError)
    assert str(error) == "--kind: got 'first', expected one of one, two; did you mean 'one'?"


@pytest.mark.parametrize("words", [("a", "--width", "x"), (), ("a", "b")], ids=" ".join)
def test_what_cannot_be_parsed_is_bad_usage(words: tuple[str, ...]) -> None:
    assert call(*words).exit_code == 2 and not SEEN


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--width", "0"), "--width: got 0, expected at least 1"),
        (("--width", "4000000000"), "--width: got 4000000000, expected at most 2147483647"),
        (("--seed", "-" + "9" * 400), f"--seed: got -{'9' * 400}, expected at least -2147483648"),
        (("--rare", "nan"), "--rare: got nan, expected a finite number"),
        (("--rare", "inf"), "--rare: got inf, expected a finite number"),
        (("--rare", "1e999"), "--rare: got inf, expected a finite number"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, tuple) else "",
)
def test_a_number_beyond_its_limits_is_named(words: tuple[str, ...], message: str) -> None:
    error = call("a", *words).exception
    assert isinstance(error, ConfigError) and str(error) == message and not SEEN


def test_help_has_headings_and_hides_what_is_rare() -> None:
    text = call("--help").stdout
    assert "SOURCE" in text and "Size\n  --width N" in text and "[default: 3]" in text
    assert "--kind {one|two}" in text and "--plain  " in text and "-s, --seed N" in text
    assert "Rare\n  see elsewhere" in text and "--rare" not in text


def test_functions_of_the_command_line_fit_a_screen() -> None:
    for file in (ROOT / "morvit_deploy/cli").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < SCREEN, f"{file.name}: {node.name}"
                assert len(node.args.args) + len(node.args.kwonlyargs) <= 10, f"{file.name}: {node.name}"


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("with_depth: got 3", "--with-depth: got 3"),
        ("seed: got -1; expected more: 0", "--seed: got -1; expected more: 0"),
        ("with_depth, seed: only one", "--with-depth, --seed: only one"),
        ("source: is empty", "source: is empty"),  # an argument has no other name
        ("capacity: got 3", "capacity: got 3"),  # a field of some file
        ("cannot read seed", "cannot read seed"),
    ],
)
def test_a_message_about_a_keyword_names_the_option(message: str, typed: str) -> None:
    command: Any = type("ActCommand", (DerivedCommand,), {"function": staticmethod(act)})("act")
    assert command.as_typed(message) == typed


def test_the_command_line_says_so(tiny_checkpoint: Path) -> None:
    ended = run("export", tiny_checkpoint, "--precision", "int8")
    assert ended.exit_code == 2 and "error: --precision: got 'int8' without images" in ended.stderr
