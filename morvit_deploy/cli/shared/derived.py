"""A command's options, from the signature of its function: single options, and dataclasses that group them.

They are derived when the command is used, so that `--help` of the others stays light.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from morvit_deploy.cli.shared.help import format_help
from morvit_deploy.exporters.options import Help, Option, check_choice, check_number, option_of, options_of

METAVARS = {Path: "PATH", int: "N", float: "X", str: "TEXT"}


@dataclass(frozen=True)
class Arg(Help):
    """A positional argument; `metavar` is its name."""


class Group:
    """Base of the dataclasses whose fields with a `Help` are options; a command takes one as a parameter."""

    panel: ClassVar[str | None] = None  # heading of its options
    hidden: ClassVar[str | None] = None  # accepted and not listed: the line that `--help` has instead


@dataclass(frozen=True)
class Derived:
    """Marks a parameter that takes the options given of those that a function lists, as Python's keywords."""

    options: Callable[[], Iterable[Option]]


@dataclass(frozen=True)
class Slot:
    """A parameter of the function, its options, and what makes its value of those that were given."""

    name: str
    options: tuple[Option, ...]
    make: Callable[..., Any] | None  # None: a single option
    required: bool = False
    panel: str | None = None
    hidden: str | None = None

    def fill(self, typed: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword for the function; none where its own default is meant."""
        given = {
            option.name: _value(option, typed[option.name])
            for option in self.options
            if _is_given(option, typed[option.name])
        }
        return given if self.make is None else {self.name: self.make(**given)}


class DerivedCommand(TyperCommand):
    """A command whose parameters are those of `function`."""

    function: ClassVar[Callable[..., None]]
    _params: list[Any]
    _is_complete: bool  # do `_params` hold the derived ones?

    @cached_property
    def slots(self) -> list[Slot]:
        """The parameters of the function."""
        return list(_slots(type(self).function))

    @cached_property
    def _inner(self) -> Any:
        """The command that Typer makes of the same options: it parses and converts them."""

        def carrier(**typed: Any) -> None:
            filled = [slot.fill(typed) for slot in self.slots]
            type(self).function(**{name: value for one in filled for name, value in one.items()})

        parameters = [_parameter(option, slot) for slot in self.slots for option in slot.options]
        carrier.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
        app = typer.Typer(add_completion=False)
        app.command()(carrier)
        return typer.main.get_command(app)

    @property
    def params(self) -> list[Any]:
        """One list, as Click adds `--help` to it and takes it off."""
        if not self._is_complete:
            self._is_complete = True
            self._params[:0] = self._inner.params
        return self._params

    @params.setter
    def params(self, own: list[Any]) -> None:
        self._params, self._is_complete = [*own], False

    def invoke(self, ctx: Any) -> Any:
        return self._inner.invoke(ctx)

    def as_typed(self, message: str) -> str:
        """A message about keywords of the Python function, `batch: got 0`, about the options: `--batch: got 0`."""
        options = {
            param.name.removesuffix("_"): max(param.opts, key=len)
            for param in self.params
            if param.param_type_name == "option"
        }
        names, colon, rest = message.partition(": ")
        known = [options.get(name) for name in names.split(", ")]
        return f"{', '.join(filter(None, known))}: {rest}" if colon and all(known) else message

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [param for param in self.params if param.param_type_name == "argument"]
        return ["[OPTIONS]", *(one.metavar if one.required else f"[{one.metavar}]" for one in arguments)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        hidden = [slot for slot in self.slots if slot.hidden]
        format_help(self, ctx, {slot.panel or "": slot.hidden or "" for slot in hidden})


def _slots(function: Callable[..., None]) -> Iterator[Slot]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint, required = hints[name], parameter.default is inspect.Parameter.empty
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        derived = next((mark for mark in marks if isinstance(mark, Derived)), None)
        if derived is not None:
            yield Slot(name, tuple(derived.options()), dict)
        elif isinstance(hint, type) and issubclass(hint, Group):
            options = tuple(shown(options_of(hint), hint.panel))
            yield Slot(name, options, hint, False, hint.panel, hint.hidden)
        else:
            option = option_of(name, hint, None if required else parameter.default)
            yield Slot(name, (option,), None, required)


def shown(options: Iterable[Option], panel: str | None = None) -> Iterator[Option]:
    """Those that the command line has, under their own heading or `panel`."""
    for option in options:
        if option.help is not None:
            yield replace(option, help=replace(option.help, panel=option.help.panel or panel))


def _parameter(option: Option, slot: Slot) -> inspect.Parameter:
    """One option as a parameter: None (of a flag, False) where the user does not give it."""
    help, name = option.help, option.name.removesuffix("_").replace("_", "-")
    assert help is not None, "only parameters with a Help are options"
    is_flag = option.default is False
    has_default = is_flag or help.show_default
    kind = _kind(option)
    more: dict[str, Any] = {"help": help.text, "metavar": _metavar(option), "show_default": help.show_default}
    if isinstance(help, Arg):
        mark = typer.Argument(**more)
    else:
        off = f"/--no-{name}" if option.kind is bool and not is_flag else ""
        names = [help.short] if help.short else []
        choices = tuple(map(str, option.choices))
        more |= {"rich_help_panel": help.panel, "hidden": bool(slot.hidden)}
        more |= {"autocompletion": lambda: choices} if choices else {}
        mark = typer.Option(*names, f"--{name}{off}", **more)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=... if slot.required else option.default if has_default else None,
        annotation=Annotated[kind if has_default or slot.required else kind | None, mark],
    )


def _metavar(option: Option) -> str | None:
    """A flag has none; a choice shows what there is."""
    assert option.help is not None
    if option.help.metavar or option.kind is bool:
        return option.help.metavar
    if option.choices:
        return "{" + "|".join(map(str, option.choices)) + "}"
    element = get_args(option.kind)[0] if get_origin(option.kind) is tuple else option.kind
    return METAVARS.get(element, "TEXT")


def _kind(option: Option) -> Any:
    """What Typer parses: a choice as text, so that an error can suggest one."""
    if get_origin(option.kind) is tuple:
        return list[get_args(option.kind)[0]]  # type: ignore[misc]  # known when it runs
    return str if option.choices else option.kind


def _is_given(option: Option, typed: Any) -> bool:
    return typed not in (None, (), []) and not (typed is False and option.default is False)


def _value(option: Option, typed: Any) -> Any:
    """What the command line parsed, as the dataclass takes it; ConfigError beyond choices or limits."""
    typed_as = replace(option, name="--" + option.name.removesuffix("_").replace("_", "-"))
    if option.choices:
        value = next((choice for choice in option.choices if str(choice) == typed), typed)
        check_choice(typed_as, value)
        return value
    check_number(typed_as, typed)
    return tuple(typed) if get_origin(option.kind) is tuple else typed
