"""The agent as one file that Python runs: `python agent.pyz`, in the format of `zipapp`, always the same bytes."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

from morvit_deploy import agent

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
_FILE = 0o100644 << 16
_MAIN = "from morvit_deploy.agent.main import main\n\nmain()\n"
_PACKAGE = '"""The part of morvit-deploy that runs on a device."""\n'  # without what the real one loads


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
