"""`morvit-deploy convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, warn, working
from morvit_deploy.cli.shared.derived import Arg
from morvit_deploy.cli.shared.groups import OUTPUT, Output, Reference
from morvit_deploy.cli.shared.sources import Foreign
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help
from morvit_deploy.sources.tensors.names import check_exists


@command(
    "convert",
    "morvit-deploy convert best.pth --explain",
    "morvit-deploy convert best.pth -o my-model --preprocess imagenet --norm-eps 1e-6",
)
def convert(
    source: Annotated[
        Path,
        Arg(
            "A file of weights (.safetensors, .pth, .pt, .bin, .ckpt, .pth.tar), an index of shards, or a folder.",
            "SOURCE",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        Help("Checkpoint folder to write; optional with --explain.", "DIR", short="-o", panel=OUTPUT),
    ] = None,
    explain: Annotated[
        bool, Help("List every tensor: where it went, and by which rule.", panel=OUTPUT)
    ] = False,
    reference: Reference = None,
    output: Output,
    foreign: Foreign,
) -> None:
    """Convert a checkpoint of other code to morvit/1: Edge-RecViT, Vision-MoR, timm, DeiT, torchvision, Hugging Face.

    The family is detected from the names of the tensors. Every tensor is used, dropped by a named rule, or reported
    as an error. Settings that affect results but are not stored in the checkpoint must be given explicitly; the error
    lists the family's published values.
    """
    check_exists(source)
    if out is None and not explain:
        raise ConfigError("no output folder given: give -o DIR (or --explain alone, which writes nothing)")
    given = foreign.settings
    with working("loading PyTorch") as (tell, _):
        from morvit_deploy.sources.conversion import checked, read_model
        from morvit_deploy.sources.conversion import convert as run
        from morvit_deploy.sources.views import conversion_report

        if out is None:
            converted = read_model(source, given, tell)
            if reference is not None:
                converted = checked(converted, reference, tell)
        else:
            converted = run(source, out, given=given, force=output.force, reference=reference, tell=tell)
    data = {"checkpoint": None if out is None else str(out), **converted.as_dict()}
    emit(conversion_report(converted, out, explain), data, output.json)
    warn(converted.warnings)
