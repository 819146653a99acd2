"""The agent's commands: `serve FOLDER`, `receive FOLDER`, `send FOLDER NAMES`; `worker` and `build` are `serve`'s."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from morvit_deploy.agent.core.child import say
from morvit_deploy.agent.core.faults import AgentError


def main() -> None:
    """Entry point of the archive; modules that need numpy are imported where they are used."""
    command, *arguments = sys.argv[1:]
    if command == "worker":
        from morvit_deploy.agent import worker

        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            worker.main(arguments)
    elif command == "build":
        from morvit_deploy.agent.trt import build as trt_build

        sys.exit(trt_build.main(arguments))
    elif command == "send":
        from morvit_deploy.agent import transfer

        transfer.send(Path(arguments[0]), arguments[1:], sys.stdout.buffer)
    elif command == "receive":
        from morvit_deploy.agent import transfer

        try:
            say(sys.stdout, {"received": transfer.receive(Path(arguments[0]), sys.stdin.buffer)})
        except AgentError as error:
            say(sys.stdout, {"error": str(error), "kind": error.kind})
    else:
        from morvit_deploy.agent.supervisor import Supervisor

        Supervisor(Path(arguments[0])).run()
