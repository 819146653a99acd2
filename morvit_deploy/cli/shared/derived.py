"""Options of a command that are derived from dataclasses when the command is used: `--help` of others stays light."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from morvit_deploy.exporters.options import Option

GIVEN = "morvit_deploy.given"  # in the context's `meta`: what the user gave of the derived options, by name


class DerivedCommand(TyperCommand):
    """A command whose function reads its derived options with `given`; a subclass says which they are."""

    _params: list[Any]
    _is_complete: bool  # do `_params` hold the derived options?

    def options(self) -> Mapping[str, tuple[Option, str | None]]:
        """The derived options by name, each with its heading (None: that of the command's own)."""
        raise NotImplementedError

    @cached_property
    def _options(self) -> Mapping[str, tuple[Option, str | None]]:
        return self.options()

    @cached_property
    def _derived(self) -> list[Any]:
        def carrier() -> None:
            """Typer reads the parameters off a function."""

        parameters = [_parameter(option, panel) for option, panel in self._options.values()]
        carrier.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app = typer.Typer(add_completion=False)
        app.command()(carrier)
        found: list[Any] = typer.main.get_command(app).params
        return found

    @property
    def params(self) -> list[Any]:
        """The derived options, then the function's own: one list, as Click adds `--help` to it and takes it off."""
        if not self._is_complete:
            self._is_complete = True
            self._params[:0] = self._derived
        return self._params

    @params.setter
    def params(self, own: list[Any]) -> None:
        self._params, self._is_complete = [*own], False

    def invoke(self, ctx: Any) -> Any:
        typed = {param.name: ctx.params.pop(param.name) for param in self._derived}
        ctx.meta[GIVEN] = {
            name: _value(self._options[name][0], value)
            for name, value in typed.items()
            if _is_given(self._options[name][0], value)
        }
        return super().invoke(ctx)


def given(context: typer.Context) -> dict[str, Any]:
    """The derived options that the user gave, by Python's keywords."""
    found: dict[str, Any] = context.meta[GIVEN]
    return found


def _parameter(option: Option, panel: str | None) -> inspect.Parameter:
    """One option as a parameter: None (of a flag, False) where the user does not give it."""
    help, name = option.help, option.name.replace("_", "-")
    assert help is not None, "only fields with a Help are options"
    is_flag, is_shown = option.default is False, help.show_default
    off = f"/--no-{name}" if option.kind is bool and not is_flag else ""
    shown = typer.Option(
        f"--{name}{off}",
        help=help.text,
        metavar=help.metavar,
        min=help.least,
        max=help.most,
        show_default=is_flag or is_shown,
        rich_help_panel=panel,
    )
    kind = _kind(option)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=option.default if is_flag or is_shown else None,
        annotation=Annotated[kind if is_flag or is_shown else kind | None, shown],
    )


def _kind(option: Option) -> Any:
    if option.choices:
        return Literal[tuple(map(str, option.choices))]
    return list[str] if get_origin(option.kind) is tuple else option.kind


def _is_given(option: Option, typed: Any) -> bool:
    return typed not in (None, (), []) and not (typed is False and option.default is False)


def _value(option: Option, typed: Any) -> Any:
    """What the command line parsed, as the dataclass takes it."""
    if option.choices:
        return next(choice for choice in option.choices if str(choice) == typed)
    return tuple(typed) if get_origin(option.kind) is tuple else typed


def shown(options: Iterable[Option]) -> list[Option]:
    """Those that the command line has."""
    return [option for option in options if option.help is not None]
