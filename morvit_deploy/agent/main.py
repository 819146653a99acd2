"""The agent's commands: `serve FOLDER`, `receive FOLDER`, and `worker …`, which `serve` starts."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from morvit_deploy.agent.faults import AgentError
from morvit_deploy.agent.lines import say


def main() -> None:
    """Entry point of the archive; modules that need numpy load where they are used."""
    command, *arguments = sys.argv[1:]
    if command == "worker":
        from morvit_deploy.agent import worker

        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            worker.main(arguments)
    elif command == "receive":
        from morvit_deploy.agent import transfer

        try:
            say(sys.stdout, transfer.main(*arguments))
        except AgentError as error:
            say(sys.stdout, {"error": str(error), "kind": error.kind})
    else:
        from morvit_deploy.agent.supervisor import Supervisor

        Supervisor(Path(arguments[0])).run()
