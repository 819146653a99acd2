"""A process that serves one bundle to `bench`, by JSON lines on stdin and stdout. No torch.

Arguments: bundle folder, its target, a .npy file of pixels uint8 (rounds, batch, height, width, 3), threads, and
optionally the bucket to run every image in. It writes the times of loading and of the first run, then serves requests
as `serving` has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from morvit_deploy.agent.serving import Model, Rounds
from morvit_deploy.exporters.targets import find_target, open_session
from morvit_deploy.measuring.cpu.serving import run, serve_rounds


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends; a refused bundle is reported as {"error"}."""
    bundle, target, pixels, threads, *bucket = arguments

    def open_model() -> Model:
        session = open_session(bundle, threads=int(threads), bucket=bucket[0] if bucket else None)
        buckets = [own.name for own in session.manifest.plan.buckets]
        return Model(session.run, buckets, session.runner.close)

    def load() -> None:
        find_target(target).load_runner()  # so that loading does not include the runtime's import

    serve_rounds(Rounds(pixels), pixels, open_model, load)


if __name__ == "__main__":
    run(main)
