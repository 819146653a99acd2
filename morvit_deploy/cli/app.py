"""The application: global options, exit status, and where commands are registered."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand

from morvit_deploy.errors import MorvitError
from morvit_deploy.machine.extras import names_extra

Command = TypeVar("Command", bound=Callable[..., Any])

app = typer.Typer(
    name="morvit-deploy",
    help="Turn a trained MoR-ViT into static graphs, prove them equal to the checkpoint, and measure them.",
    epilog="Exit status: 0 done and verified, 1 a check failed, 2 bad usage or input. "
    "`morvit-deploy --debug COMMAND` shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
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


def command(name: str, cls: type[TyperCommand] | None = None) -> Callable[[Command], Command]:
    """Register a command; its MorvitErrors become one message on stderr and the error's exit status."""

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                with names_extra(f"morvit-deploy {name}"):
                    function(*args, **kwargs)
            except MorvitError as error:
                _stop(str(error), error.exit_status)
            except KeyboardInterrupt:
                _stop("interrupted; nothing half-written was left behind", 130)

        app.command(name, cls=cls)(guarded)
        return function

    return register


def _stop(message: str, status: int) -> NoReturn:
    if _debug:
        traceback.print_exc()
    typer.echo(f"{typer.style('error:', fg='red', bold=True)} {message}", err=True)
    raise typer.Exit(status)


def _terminated(*_: object) -> NoReturn:
    raise KeyboardInterrupt  # SIGTERM cleans up as Ctrl-C does


def main() -> None:
    """Entry point of `morvit-deploy`."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except BrokenPipeError:  # `| head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
