"""Which libraries can be imported, tried in a child process: an import may crash, hang or take seconds. No torch."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable

from morvit_deploy.agent.core.child import Child, own_stdout, say
from morvit_deploy.agent.core.faults import AgentError
from morvit_deploy.machine.extras import module_of

TIMEOUT_S = 120.0  # for one library: PyTorch from a cold, slow disk takes half a minute
SHOWN = 120  # characters of an error
START = (  # not from the current folder, in which a user may have a file torch.py
    "import sys; sys.path = [place for place in sys.path if place]; import json; sys.path = json.loads(sys.argv[1]); "
    "from morvit_deploy.machine.importing import serve; serve()"
)


def try_imports(names: Iterable[str], timeout_s: float = TIMEOUT_S) -> dict[str, str]:
    """Import installed distributions; returns why each could not be imported, "" for those that could.

    They are imported one after the other in one process, as a command imports them. After a crash another goes on.
    """
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        child = _child(timeout_s)
        try:
            while waiting:
                found[waiting[0]] = child.ask({"module": module_of(waiting[0])}, "importing", timeout_s)[
                    "problem"
                ]
                del waiting[0]
        except AgentError as error:
            found[waiting.pop(0)] = str(error).split(";")[0]
        finally:
            child.close()
    return found


def serve() -> None:
    """In the child: import a module for each line of stdin, and reply with what went wrong."""
    replies = own_stdout()
    say(replies, {})
    for line in sys.stdin:
        say(replies, {"problem": _problem(json.loads(line)["module"])})


def _problem(module: str) -> str:
    try:
        importlib.import_module(module)
    except BaseException as error:  # a library may exit, too
        text = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return ""


def _child(timeout_s: float) -> Child:
    command = [sys.executable, "-c", START, json.dumps([place for place in sys.path if place])]
    return Child(command, "Python", timeout_s=timeout_s)
