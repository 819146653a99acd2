"""What commands share: consoles, options, defaults, JSON. Light: imported by `--help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morvit_deploy.errors import BundleError, ConfigError
from morvit_deploy.files import is_ours

FILE_WIDTH = 110  # columns of a table that goes to a file or a pipe

if TYPE_CHECKING:
    from rich.console import Console

    from morvit_deploy.report import Report

CheckpointArg = Annotated[
    Path | None,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Checkpoint: a morvit/1 folder, or what `convert` takes; the current folder when left out.",
        show_default=False,
    ),
]
BundleArg = Annotated[
    Path | None,
    typer.Argument(
        metavar="BUNDLE", help="Bundle folder; the newest under build/ when left out.", show_default=False
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        help="Folder of images (with labels.csv or class subfolders, also top-1).",
        show_default=False,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        help="Use at most this many images (default: 32 for export, 64 for verify, 256 for inspect).",
        show_default=False,
    ),
]
MinAgreementOption = Annotated[
    float | None,
    typer.Option(
        "--min-agreement",
        min=0.0,
        max=1.0,
        help="Top-1 agreement that a plan's model must have with the trained one (default: reported only); below "
        "fp32 also the gate of decisions and classes (default: int8 0.99, fp16 0.999, of coreml 0.995).",
        show_default=False,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Compute threads (default: all cores).", show_default=False),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
UpscaleOption = Annotated[
    bool, typer.Option("--upscale", help="Enlarge images that are smaller than the crop.")
]


def stdout() -> Console:
    """For results."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else FILE_WIDTH
    return Console(width=width)


def stderr() -> Console:
    """For progress and remarks, so that stdout stays clean."""
    from rich.console import Console

    return Console(stderr=True)


def warn(sentences: Iterable[str]) -> None:
    """Each as a yellow line on stderr."""
    for sentence in sentences:
        stderr().print(f"warning: {sentence}", markup=False, highlight=False, style="yellow")


def emit(report: Report, data: Any, as_json: bool) -> None:
    """Print the result: tables for a person, one JSON document for a program."""
    if as_json:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        report.show(stdout())


@contextmanager
def stages(first: str) -> Iterator[Callable[[str], None]]:
    """A spinner on a terminal, naming the stage; silent elsewhere."""
    console = stderr()
    with console.status(first) as status:
        yield lambda stage: status.update(stage)


@contextmanager
def progress_bar() -> Iterator[tuple[Callable[[str], None], Callable[[float], None]]]:
    """Tellers of the stage and of the share done, 0 to 1: a bar on a terminal, silent elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)
        yield (
            lambda stage: bar.update(task, description=stage),
            lambda share: bar.update(task, completed=share),
        )


def check_image_options(images: Path | None, limit: int | None, upscale: bool) -> None:
    """ConfigError for options for reading images when there are none to read."""
    if images is None and (limit is not None or upscale):
        raise ConfigError(
            "--limit and --upscale say how to read --images; give --images too, or leave them out"
        )


def remark_on_limit(images: Path | None, source: Path, used: int) -> None:
    """Print a note when a folder holds more images than were looked at."""
    if images is None:
        return
    from morvit_deploy.bundle.images import open_images
    from morvit_deploy.model.config import load_config

    found = len(open_images(images, load_config(source)))
    if used < found:
        stderr().print(f"note: {used} of {found} images, a seeded choice; --limit N takes another number")


def checkpoint_path(given: Path | None) -> Path:
    """`given`, or the current folder when it holds a checkpoint; a bundle is an error."""
    path = given or Path()
    if (path / "config.json").is_file():
        return path
    if is_ours(path / "manifest.json"):
        raise ConfigError(f"{path} is a bundle; give the checkpoint that it was made from")
    if given is None:
        raise ConfigError(
            "no checkpoint given (CHECKPOINT, for verify --checkpoint), and the current folder has no config.json"
        )
    return path  # its own loader reports what is missing


def bundle_folder(given: Path | None) -> Path:
    """`given`, or the newest bundle under build/."""
    if given is not None:
        return given
    manifests = [*Path("build").glob("*/manifest.json"), *Path("build").glob("*/*/manifest.json")]
    hidden = [path for path in manifests if any(part.startswith(".") for part in path.parts)]  # being written
    whole = [path for path in manifests if path not in hidden and is_ours(path)]
    found = sorted(whole, key=lambda path: path.stat().st_mtime)
    if not found:
        raise BundleError("no BUNDLE given, and there is none under build/; run `morvit-deploy export` first")
    return found[-1].parent
