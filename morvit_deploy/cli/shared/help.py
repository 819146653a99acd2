"""How `--help` reads: usage, what the command does, its options under their headings, examples."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from morvit_deploy.cli.shared.console import heading, out_width, say
from morvit_deploy.layout import wrapped

MARGIN = 26  # columns before an option's text
WIDEST = 100  # longer lines are hard to read


def format_help(command: Any, ctx: Any, notes: Mapping[str, str]) -> None:
    """Print the help of a command or of the application; `notes` stand under their headings instead of options."""
    width = min(out_width(), WIDEST)
    say(*wrapped(f"Usage: {ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}", width))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        say("", *wrapped(" ".join(paragraph.split()), width))
    for title, rows in _sections(command, ctx, notes).items():
        say("", heading(title))
        for name, text in rows:
            say(*_entry(name, text, width))
    if command.epilog:
        say("", *command.epilog.split("\n"))


def _sections(command: Any, ctx: Any, notes: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Headings, each with the names and texts under it, in the order of their first options."""
    found: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        if not getattr(param, "hidden", False):
            is_argument = param.param_type_name == "argument"
            title = "Arguments" if is_argument else param.rich_help_panel or "Options"
            found.setdefault(title, []).append((_name(param, is_argument), _text(param)))
    if hasattr(command, "commands"):
        found["Commands"] = [(name, _first(one.help)) for name, one in command.commands.items()]
    found |= {title: [("", line)] for title, line in notes.items()}
    last = found.pop("Options", None)
    return found if last is None else {**found, "Options": last}


def _first(help: str | None) -> str:
    return " ".join(inspect.cleandoc(help or "").split("\n\n")[0].split())


def _name(param: Any, is_argument: bool) -> str:
    if is_argument:
        return str(param.metavar)
    names = [*sorted(param.opts, key=len), *param.secondary_opts]
    return ", ".join(names) + (f" {param.metavar}" if param.metavar else "")


def _text(param: Any) -> str:
    default = f" [default: {param.default}]" if param.show_default and param.default is not None else ""
    return (param.help or "") + default + (" [required]" if param.required else "")


def _entry(name: str, text: str, width: int) -> list[str]:
    """A name and its text beside it, or below it where the name is long."""
    lines = [" " * MARGIN + line for line in wrapped(text, width - MARGIN)]
    if not name:
        return ["  " + line for line in wrapped(text, width - 2)]
    if len(name) + 4 <= MARGIN:
        return [f"  {name}".ljust(MARGIN) + lines[0].lstrip(), *lines[1:]]
    names = wrapped(name.replace("|", "| "), width - 2) if len(name) + 2 > width else [name]
    return [*("  " + part for part in names), *lines]
