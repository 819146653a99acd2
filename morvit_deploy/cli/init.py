"""`morvit-deploy init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import say, working
from morvit_deploy.cli.shared.groups import OUTPUT, Force
from morvit_deploy.exporters.options import LARGEST_SEED, Help
from morvit_deploy.model.presets import PRESETS


@command("init", "morvit-deploy init --preset morvit_b16 -o my-model")
def init(
    preset: Annotated[str, Help(f"Architecture: {', '.join(PRESETS)}.", "NAME", panel="Model")],
    seed: Annotated[
        int, Help("Seed of the random weights.", least=0, most=LARGEST_SEED, show_default=True, panel="Model")
    ] = 0,
    out: Annotated[
        Path | None, Help("Folder to write (default: the preset's name).", "DIR", short="-o", panel=OUTPUT)
    ] = None,
    force: Force = False,
) -> None:
    """Write a randomly initialized checkpoint, to measure an architecture's speed before training it."""
    from morvit_deploy.model.presets import preset as find
    from morvit_deploy.report import count

    config = find(preset)
    folder = out or Path(preset)
    with working("loading PyTorch") as (tell, _):
        from morvit_deploy.model.checkpoint import init_model, save_checkpoint

        tell(f"initializing {preset}")
        model = init_model(config, seed)
        save_checkpoint(model, folder, force=force)
    parameters = count(sum(p.numel() for p in model.parameters()))
    say(f"{folder}: {preset}, {parameters} parameters, random weights (seed {seed})")
