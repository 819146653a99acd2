"""The first words to the device: takes the agent's archive from stdin into a new folder, and becomes the agent.

Python older than the agent's reads this, too, so that it can report it.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence

from morvit_deploy.remote.host import Host

LEAST_PYTHON = (3, 8)
NO_PYTHON = 127  # what a shell returns where there is no such command

_PROGRAM = """
import sys
sys.path.pop(0)
morvit_loader = 1
def fail(text):
    import json
    sys.stdout.write(json.dumps({"error": text, "kind": "lacking"}) + "\\n")
    sys.stdout.flush()
    sys.exit(0)
if sys.version_info < LEAST:
    fail("the device's %s is Python %d.%d, expected %d.%d or newer; name another one with --python"
         % ((sys.executable,) + tuple(sys.version_info[:2]) + LEAST))
import os, shutil, tempfile
size, base = int(sys.argv[2]), os.path.expanduser(sys.argv[3]) or tempfile.gettempdir()
try:
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip().replace("-", "")[:8]
except OSError:
    boot = "unknown"
folder = None
try:
    folder = tempfile.mkdtemp(prefix="morvit-agent-%d-%s-" % (os.getpid(), boot or "unknown"), dir=base)
    place = os.path.join(folder, "agent.pyz")
    with open(place, "wb") as archive:
        while size:
            part = os.read(0, min(size, 65536))
            if not part:
                raise EOFError
            size -= archive.write(part)
except EOFError:
    shutil.rmtree(folder, True)
    sys.exit(1)
except OSError as error:
    if folder:
        shutil.rmtree(folder, True)
    fail("the device cannot hold the agent in %s: %s; free some space, or choose another place with --remote-dir"
         % (base, error.strerror))
os.execv(sys.executable, [sys.executable, place, "serve", folder])
"""


def load_command(host: Host, size: int) -> str:
    """The shell command that waits for `size` bytes of the archive.

    The program goes as base64: login shells differ in what they make of newlines and exclamation marks.
    """
    program = base64.b64encode(_PROGRAM.replace("LEAST", repr(LEAST_PYTHON)).encode()).decode()
    run = f'import base64; exec(base64.b64decode("{program}"))'
    return shlex.join([host.python, "-c", run, "morvit_loader", str(size), host.folder])


def receive_command(host: Host, folder: str) -> str:
    """The shell command that takes the measurement's files from stdin, as a tar stream."""
    return shlex.join([host.python, f"{folder}/agent.pyz", "receive", folder])


def send_command(host: Host, folder: str, place: str, names: Sequence[str]) -> str:
    """The shell command that gives files of a folder inside the agent's, as a tar stream on stdout."""
    return shlex.join([host.python, f"{folder}/agent.pyz", "send", f"{folder}/{place}", *names])
