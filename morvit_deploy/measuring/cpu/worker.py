"""A process that serves one bundle to `bench`, by JSON lines on stdin and stdout. No torch.

Arguments: bundle folder, its target, a .npy file of pixels uint8 (rounds, batch, height, width, 3), threads, and
optionally the bucket to run every image in. It writes the times of loading and of the first run, then serves the
requests of `agent.serving`, {"parity": n}, which reads `expected_file`, and that of `batches`, until stdin ends.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morvit_deploy.agent.core.child import own_stdout, say
from morvit_deploy.agent.parity import compared
from morvit_deploy.agent.serving import Model, Rounds, serve
from morvit_deploy.errors import MorvitError
from morvit_deploy.exporters.targets import find_target, open_session
from morvit_deploy.machine.this import memory_mib
from morvit_deploy.measuring.core.inputs import expected_file
from morvit_deploy.measuring.cpu.batches import BATCH, in_batches


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends; a refused bundle is reported as {"error"}."""
    bundle, target, pixels, threads, *bucket = arguments
    replies, rounds = own_stdout(), Rounds(pixels)

    def open_model() -> Model:
        session = open_session(bundle, threads=int(threads), bucket=bucket[0] if bucket else None)
        buckets = [own.name for own in session.manifest.plan.buckets]
        return Model(session.run, buckets, session.runner.close)

    def parity(model: Model, request: dict[str, Any]) -> dict[str, Any]:
        return compared(model, rounds, expected_file(Path(pixels)), request["parity"])

    try:
        find_target(target).load_runner()  # so that loading does not include the runtime's import
        extras = {"parity": parity, BATCH: in_batches(rounds)}
        serve(open_model, rounds, sys.stdin, replies, memory_mib, extras)
    except MorvitError as error:
        say(replies, {"error": str(error)})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(sys.argv[1:])
