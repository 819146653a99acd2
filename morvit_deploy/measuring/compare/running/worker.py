"""A process that serves a graph or a checkpoint in one runtime to `compare`, as `measuring.cpu.worker` does a bundle.

Arguments: runtime, path, a .npy file of pixels uint8 (rounds, 1, height, width, 3), threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from morvit_deploy.agent.serving import Model, Rounds
from morvit_deploy.measuring.compare.running.runtimes import Feed, open_runtime
from morvit_deploy.measuring.cpu.serving import run, serve_rounds


class Fed(Rounds):
    """Rounds in the form that a graph takes, which is not part of what is timed."""

    feed: Feed

    def __getitem__(self, number: int) -> NDArray[Any]:
        return self.feed(super().__getitem__(number))


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends; what a runtime refuses is reported as {"error"}."""
    runtime, path, pixels, threads = arguments
    rounds = Fed(pixels)

    def open_model() -> Model:
        model, rounds.feed = open_runtime(runtime, Path(path), int(threads))
        return model

    serve_rounds(rounds, pixels, open_model)


if __name__ == "__main__":
    run(main)
