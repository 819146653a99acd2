"""Checkpoints of other formats in every command: options for what their files do not hold, and the conversion."""

from __future__ import annotations

import functools
import inspect
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from morvit_deploy.cli.shared.common import checkpoint_path, stages, stderr
from morvit_deploy.errors import ConfigError, MorvitError
from morvit_deploy.sources.tensors.names import is_foreign

if TYPE_CHECKING:
    from morvit_deploy.sources.settings.given import Given

Command = TypeVar("Command", bound=Callable[..., Any])

PANEL = "For a checkpoint of other code: what its files do not say"


def _option(kind: Any, name: str, help: str, metavar: str | None = None) -> Any:
    return Annotated[
        kind, typer.Option(name, help=help, metavar=metavar, show_default=False, rich_help_panel=PANEL)
    ]


OPTIONS: dict[str, Any] = {
    "preprocess": _option(
        str | None,
        "--preprocess",
        "imagenet, inception, cifar10, or a JSON file as in config.json.",
        "NAME|FILE",
    ),
    "norm_eps": _option(float | None, "--norm-eps", "LayerNorm's epsilon."),
    "num_heads": _option(int | None, "--num-heads", "Attention heads."),
    "activation": _option(str | None, "--activation", "Of the MLP: gelu, gelu_tanh or relu."),
    "gate": _option(str | None, "--gate", "Update of a token that runs: block, delta or hard."),
    "alpha": _option(float | None, "--alpha", "Factor of the router's score."),
    "selection": _option(
        str | None,
        "--selection",
        "nested: who left never returns, CLS stays; flat: each step ranks all tokens.",
    ),
    "capacity": _option(str | None, "--capacity", "Tokens that run each step.", "K1,K2,…"),
    "dora_alpha": _option(float | None, "--dora-alpha", "Alpha of DoRA layers that were not merged."),
    "image_size": _option(int | None, "--image-size", "Resample position embeddings to images of this size."),
    "sharing": _option(
        str | None, "--sharing", "Demand that unrolled layers are tied: none, cycle or middle_cycle; proved."
    ),
    "cycle_depth": _option(int | None, "--cycle-depth", "With --sharing: unique blocks of the cycle."),
    "family": _option(str | None, "--family", "Take it for this family instead of recognising it."),
    "no_ema": Annotated[
        bool,
        typer.Option(
            "--no-ema", help="Trained weights where a file also has averaged ones.", rich_help_panel=PANEL
        ),
    ],
}


def takes_source(function: Command) -> Command:
    """Give a command the source options; it receives them as one keyword, `said`."""
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in signature.parameters.items()
        if name != "said"
    ]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if name == "no_ema" else None,
            annotation=annotation,
        )
        for name, annotation in OPTIONS.items()
    ]

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        words = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        function(*args, said=words, **kwargs)

    wrapped.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]  # what Typer reads
    wrapped.__annotations__ = hints | OPTIONS
    return wrapped  # type: ignore[return-value]  # with other parameters, as said


def given_of(said: dict[str, Any]) -> Given:
    """The options as the library takes them; ConfigError for a value that cannot be."""
    from morvit_deploy.sources.settings.given import Given

    words = {name: value for name, value in said.items() if name != "no_ema" and value is not None}
    if "capacity" in words:
        words["capacity"] = _numbers(words["capacity"])
    return Given(ema=not said.get("no_ema", False), **words)


def said_options(said: dict[str, Any]) -> list[str]:
    """The source options that were given, as typed."""
    given = (name for name, value in said.items() if value is not None and value is not False)
    return ["--" + name.replace("_", "-") for name in given]


@dataclass(frozen=True)
class Opened:
    """A native checkpoint folder, what the user gave for it, and the name by which its outputs are called."""

    folder: Path
    given: Path
    name: str


@contextmanager
def opened(checkpoint: Path | None, said: dict[str, Any]) -> Iterator[Opened]:
    """The checkpoint as a native folder: itself, or converted into a temporary one while the command runs."""
    path = checkpoint_path(checkpoint)
    given = given_of(said)
    if not is_foreign(path):
        if words := said_options(said):
            raise ConfigError(
                f"{path} is a morvit/1 checkpoint: its config.json says everything, so leave out "
                f"{', '.join(words)} (`morvit-deploy convert` changes its image size)"
            )
        yield Opened(path, path, path.resolve().name)
        return
    with tempfile.TemporaryDirectory(prefix="morvit-") as scratch:
        folder = Path(scratch) / "checkpoint"
        with stages("loading PyTorch") as tell:
            from morvit_deploy.sources.conversion import convert

            converted = convert(path, folder, given=given, tell=tell)
        detected = f"{path} is {converted.title}, told by {converted.because[0]}; {converted.tied}"
        for remark in (detected, *converted.remarks):
            stderr().print(f"note: {remark}", markup=False, highlight=False)
        try:
            yield Opened(folder, path, path.resolve().name if path.is_dir() else path.stem)
        except MorvitError as error:  # the user knows his file, not where it lay converted
            raise type(error)(str(error).replace(str(folder), f"{path} (converted)")) from error


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--capacity: got {text!r}, expected positive numbers with commas, as in 65,43,21")
    return tuple(int(part) for part in parts)
