"""What each process that is measured here does: open a model, and serve it by JSON lines. No torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from morvit_deploy.agent.core.child import own_stdout, say
from morvit_deploy.agent.parity import compared
from morvit_deploy.agent.serving import Model, Rounds, serve
from morvit_deploy.errors import MorvitError
from morvit_deploy.machine.this import memory_mib
from morvit_deploy.measuring.core.inputs import expected_file
from morvit_deploy.measuring.cpu.batches import BATCH, in_batches


def serve_rounds(
    rounds: Rounds, pixels: str, open_model: Callable[[], Model], load: Callable[[], None] = lambda: None
) -> None:
    """Serve the requests of `agent.serving`, {"parity": n}, which reads `expected_file`, and that of `batches`.

    It ends with stdin. `load` is called before the time of loading begins. A MorvitError is reported as {"error"}.
    """
    replies = own_stdout()

    def parity(model: Model, request: dict[str, Any]) -> dict[str, Any]:
        return compared(model, rounds, expected_file(Path(pixels)), request["parity"])

    try:
        load()
        serve(
            open_model, rounds, sys.stdin, replies, memory_mib, {"parity": parity, BATCH: in_batches(rounds)}
        )
    except MorvitError as error:
        say(replies, {"error": str(error)})


def run(main: Callable[[Sequence[str]], None]) -> None:
    """`main` with the arguments of the process, which ends silently with its parent."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(sys.argv[1:])
