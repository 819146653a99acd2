"""A process that serves one bundle to `bench`: requests and answers are JSON lines on stdin and stdout. No torch.

Arguments: bundle folder, its target, a .npy file of pixels uint8 (rounds, batch, height, width, 3), threads, and
perhaps the bucket to run every image in. First line out: load and first run in milliseconds. Then it answers as
`agent.serving` says. The end of stdin ends the process, so that it never outlives the one who asked.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from morvit_deploy.agent.core.lines import own_stdout, say
from morvit_deploy.agent.serving import Model, Rounds, serve
from morvit_deploy.errors import MorvitError
from morvit_deploy.exporters.targets import find_target, open_bundle
from morvit_deploy.machine.this import memory_mib


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends; a refused bundle is answered as {"error"}."""
    bundle, target, pixels, threads, *bucket = arguments
    answers = own_stdout()

    def open_model() -> Model:
        session = open_bundle(bundle, threads=int(threads), bucket=bucket[0] if bucket else None)
        buckets = [own.name for own in session.manifest.plan.buckets]
        return Model(session.run, buckets, session.runner.close)

    try:
        find_target(target).load_runner()  # the runtime's import is no part of loading
        serve(open_model, Rounds(pixels), sys.stdin, answers, memory_mib, {})
    except MorvitError as error:
        say(answers, {"error": str(error)})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(sys.argv[1:])
