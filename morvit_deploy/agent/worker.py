"""A process on the device that serves one bundle: one `serving.serve` loop.

Arguments: the bundle's folder with its recipe, pixels and expected logits; threads; perhaps the bucket to run every
image in. {"parity": n} returns how far the logits of the first n rounds are from those expected.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morvit_deploy.agent.core.child import own_stdout, say
from morvit_deploy.agent.core.faults import AgentError
from morvit_deploy.agent.core.recipe import EXPECTED, PIXELS, Recipe, read_recipe
from morvit_deploy.agent.core.running import normalise, run_in_batches
from morvit_deploy.agent.host.machine import memory_mib
from morvit_deploy.agent.parity import compared
from morvit_deploy.agent.runtimes import load_runner
from morvit_deploy.agent.serving import Model, Rounds, serve


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends; a refused bundle is reported as {"error"}."""
    folder, threads, bucket = Path(arguments[0]), int(arguments[1]), (*arguments[2:], None)[0]
    replies = own_stdout()
    rounds = Rounds(str(folder / PIXELS))

    def parity(model: Model, request: dict[str, Any]) -> dict[str, Any]:
        return compared(model, rounds, folder / EXPECTED, request["parity"])

    try:
        # the runtime's import is no part of loading; `target` is all that is read before the files are checked
        load_runner(Recipe.of(folder).target)
        serve(
            lambda: open_model(folder, threads, bucket),
            rounds,
            sys.stdin,
            replies,
            memory_mib,
            {"parity": parity},
        )
    except AgentError as error:
        say(replies, {"error": str(error)})


def open_model(folder: Path, threads: int, bucket: str | None) -> Model:
    """Check the files and load the graphs."""
    recipe = read_recipe(folder)
    runner = load_runner(recipe.target)(folder, recipe, threads, bucket)

    def feed(pixels: Any) -> Any:
        return pixels if recipe.input == "uint8" else normalise(pixels, recipe.mean, recipe.std)

    return Model(
        lambda pixels: run_in_batches(runner, pixels, recipe.batch, feed), recipe.buckets, runner.close
    )
