"""`morvit-deploy convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import ForceOption, JsonOption, emit, stages
from morvit_deploy.cli.shared.sources import given_of, takes_source
from morvit_deploy.errors import ConfigError


@command("convert")
@takes_source
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A file of weights (.safetensors, .pth, .pt, .bin, .ckpt), an index of shards, or a folder.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Checkpoint folder to write; with --explain it may be left out.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="List every tensor: where it went, and by which rule.")
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    *,
    said: dict[str, Any],
) -> None:
    """Turn a checkpoint that others' code trained into morvit/1: Edge-RecViT, Vision-MoR, timm, DeiT, Hugging Face.

    The family is recognised by the names of the tensors. Every tensor is used, dropped by a named rule, or an error.
    What changes answers and is in no file is asked for, with the family's published values beside it.
    """
    if out is None and not explain:
        raise ConfigError("no -o DIR given: where shall the checkpoint go? (--explain alone writes nothing)")
    given = given_of(said)
    with stages("loading PyTorch") as tell:
        from morvit_deploy.sources.conversion import convert as run
        from morvit_deploy.sources.conversion import read_model
        from morvit_deploy.sources.views import conversion_report

        if out is None:
            converted = read_model(source, given, tell)
        else:
            converted = run(source, out, given=given, force=force, tell=tell)
    data = {"checkpoint": None if out is None else str(out), **converted.as_dict()}
    emit(conversion_report(converted, out, explain), data, as_json)
