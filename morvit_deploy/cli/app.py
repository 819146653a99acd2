"""The application: global options, exit status, and where commands are registered."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from morvit_deploy.cli.shared.console import remark, stand_in_signs
from morvit_deploy.cli.shared.derived import DerivedCommand
from morvit_deploy.cli.shared.help import format_help
from morvit_deploy.cli.shared.interrupts import INTERRUPT_STATUS, INTERRUPTED, clean_up_on_signals
from morvit_deploy.cli.shared.streams import guard, status_after
from morvit_deploy.errors import MorvitError
from morvit_deploy.machine.extras import names_extra

Function = TypeVar("Function", bound=Callable[..., None])


class Application(TyperGroup):
    """The list of commands, printed as the help of one command is."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        format_help(self, ctx, {})


app = typer.Typer(
    name="morvit-deploy",
    cls=Application,
    help="Turn a trained MoR-ViT into static graphs, verify them against the checkpoint, and measure them.",
    epilog="Exit status: 0 done and verified, 1 a check failed, 2 bad usage or input.\n"
    "Examples: `morvit-deploy COMMAND --help`.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_debug = False


def _version(wanted: bool) -> None:
    if wanted:
        from morvit_deploy.machine.dependencies import installed

        typer.echo(f"morvit-deploy {installed('morvit-deploy')}")
        raise typer.Exit


@app.callback()
def _global(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


class Command(DerivedCommand):
    """A command whose MorvitErrors become one message on stderr and the error's exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with names_extra(f"morvit-deploy {ctx.info_name}"):
                return super().invoke(ctx)
        except MorvitError as error:
            _stop(self.as_typed(str(error)), error.exit_status)
        except KeyboardInterrupt:
            _stop(INTERRUPTED, INTERRUPT_STATUS)
        except OSError as error:
            _stop(f"{error.filename or ctx.info_name}: {error.strerror or error}", 2)
        except MemoryError:
            _stop("out of memory; nothing was written. Close other programs, or use a larger machine", 2)


def command(name: str, *examples: str) -> Callable[[Function], Function]:
    """Register a function as a command; `examples` end its help."""

    def register(function: Function) -> Function:
        cls = type(f"{name.title()}Command", (Command,), {"function": staticmethod(function)})
        lines = ["Examples:" if len(examples) > 1 else "Example:", *(f"  {line}" for line in examples)]
        app.command(name, cls=cls, help=function.__doc__, epilog="\n".join(lines))(_placeholder)
        return function

    return register


def _placeholder() -> None:
    """Typer registers a function; DerivedCommand runs its own."""


def _stop(message: str, status: int) -> NoReturn:
    if _debug:
        traceback.print_exc()
    remark("error", message, "red")
    raise typer.Exit(status)


def main() -> NoReturn:
    """Entry point of `morvit-deploy`."""
    guard()
    stand_in_signs()
    clean_up_on_signals()
    try:
        app()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.exit(status_after(status))
