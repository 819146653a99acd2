"""How the agent gets to a device: as one file that Python runs, after a program that receives and starts it.

The archive is in the format of `zipapp`, and its bytes are always the same. A Python older than the agent requires
also reads the program, so that it can report its version.
"""

from __future__ import annotations

import base64
import io
import shlex
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from morvit_deploy import agent
from morvit_deploy.remote.host import Host

LEAST_PYTHON = (3, 8)
NO_PYTHON = 127  # what a shell returns where there is no such command

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
_FILE = 0o100644 << 16
_MAIN = "from morvit_deploy.agent.main import main\n\nmain()\n"
_PACKAGE = '"""The part of morvit-deploy that runs on a device."""\n'  # without what the real one loads
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


@cache
def agent_archive() -> bytes:
    """`morvit_deploy.agent` and nothing else; stored, as compressed bytes differ from zlib to zlib."""
    folder = Path(agent.__file__).parent
    files = {
        f"morvit_deploy/agent/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*.py")
    }
    files |= {"__main__.py": _MAIN.encode(), "morvit_deploy/__init__.py": _PACKAGE.encode()}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr, entry.create_system = _FILE, 3
            archive.writestr(entry, files[name])
    return content.getvalue()


def load_command(host: Host, size: int) -> str:
    """The shell command that waits for `size` bytes of the archive.

    The program is sent as base64, because login shells differ in how they treat newlines and exclamation marks.
    """
    program = base64.b64encode(_PROGRAM.replace("LEAST", repr(LEAST_PYTHON)).encode()).decode()
    run = f'import base64; exec(base64.b64decode("{program}"))'
    return shlex.join([host.python, "-c", run, "morvit_loader", str(size), host.folder])


def receive_command(host: Host, folder: str) -> str:
    """The shell command that receives the measurement's files from stdin, as a tar stream."""
    return shlex.join([host.python, f"{folder}/agent.pyz", "receive", folder])


def send_command(host: Host, folder: str, place: str, names: Sequence[str]) -> str:
    """The shell command that sends files of a folder inside the agent's, as a tar stream on stdout."""
    return shlex.join([host.python, f"{folder}/agent.pyz", "send", f"{folder}/{place}", *names])
