"""`morvit-deploy init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import ForceOption, stages, stdout
from morvit_deploy.model.presets import PRESETS


@command("init")
def init(
    preset: Annotated[str, typer.Option("--preset", help=f"Architecture: {', '.join(PRESETS)}.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder to write (default: the preset's name).", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the random weights.")] = 0,
    force: ForceOption = False,
) -> None:
    """Write a randomly initialised checkpoint, to judge an architecture's speed before anyone trains it."""
    from morvit_deploy.model.presets import preset as find
    from morvit_deploy.report import count

    config = find(preset)
    folder = out or Path(preset)
    with stages("loading PyTorch") as tell:
        from morvit_deploy.model.checkpoint import init_model, save_checkpoint

        tell(f"initialising {preset}")
        model = init_model(config, seed)
        save_checkpoint(model, folder, force=force)
    parameters = count(sum(p.numel() for p in model.parameters()))
    stdout().print(f"{folder}: {preset}, {parameters} parameters, random weights (seed {seed})", markup=False)
