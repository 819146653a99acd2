"""A process that serves a graph or a checkpoint in one runtime to `compare`, as `measuring.cpu.worker` does a bundle.

Arguments: runtime, path, a .npy file of pixels uint8 (rounds, 1, height, width, 3), threads.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from morvit_deploy.agent.core.child import own_stdout, say
from morvit_deploy.agent.parity import compared
from morvit_deploy.agent.serving import Model, Rounds, serve
from morvit_deploy.errors import MorvitError
from morvit_deploy.machine.this import memory_mib
from morvit_deploy.measuring.compare.running.runtimes import Feed, open_runtime
from morvit_deploy.measuring.core.inputs import expected_file
from morvit_deploy.measuring.cpu.batches import BATCH, in_batches


class Fed(Rounds):
    """Rounds in the form that a graph takes, which is not part of what is timed."""

    feed: Feed

    def __getitem__(self, number: int) -> NDArray[Any]:
        return self.feed(super().__getitem__(number))


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends; what a runtime refuses is reported as {"error"}."""
    runtime, path, pixels, threads = arguments
    replies, rounds = own_stdout(), Fed(pixels)

    def open_model() -> Model:
        model, rounds.feed = open_runtime(runtime, Path(path), int(threads))
        return model

    def parity(model: Model, request: dict[str, Any]) -> dict[str, Any]:
        return compared(model, rounds, expected_file(Path(pixels)), request["parity"])

    try:
        extras = {"parity": parity, BATCH: in_batches(rounds)}
        serve(open_model, rounds, sys.stdin, replies, memory_mib, extras)
    except MorvitError as error:
        say(replies, {"error": str(error)})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(sys.argv[1:])
