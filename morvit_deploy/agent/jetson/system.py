"""The machine to read: files below a root, and commands on a search path, which tests replace."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from pathlib import Path

# a shell that ssh starts without login often lacks sbin, where nvpmodel is, and CUDA's own folder
MORE_PLACES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin", "/usr/local/cuda/bin")
TIMEOUT_S = 10.0  # nvpmodel and jetson_clocks return within a second; a hung driver must not hang us


class System:
    """Reads only; nothing is changed and no privilege is required.

    `root` is where the file system begins; `path` is a search path for commands like PATH's.
    """

    def __init__(self, root: str | Path = "/", path: str | None = None) -> None:
        self.root = Path(root)
        self.path = os.pathsep.join((os.environ.get("PATH", ""), *MORE_PLACES)) if path is None else path

    def read(self, name: str) -> str | None:
        """A small file's text without the NULs of the device tree; None when it cannot be read."""
        try:
            content = (self.root / name.lstrip("/")).read_bytes()
        except OSError:  # a gated thermal zone returns EAGAIN, debugfs refuses whoever is not root
            return None
        return content.decode("utf-8", "replace").replace("\0", "\n").strip()

    def number(self, name: str) -> int | None:
        """A file that holds one whole number; None when it cannot be read or holds something else."""
        text = self.read(name)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def names(self, pattern: str) -> list[str]:
        """Files that match, sorted, as names below the root: `/sys/class/...`."""
        found = self.root.glob(pattern.lstrip("/"))
        try:
            return sorted("/" + path.relative_to(self.root).as_posix() for path in found)
        except OSError:
            return []

    def command(self, name: str) -> str | None:
        """Path of a command; None when it is not found."""
        return shutil.which(name, path=self.path)

    def run(self, name: str, *arguments: str) -> str | None:
        """What a command prints; None when it is missing, fails or takes longer than TIMEOUT_S."""
        program = self.command(name)
        if program is None:
            return None
        try:
            done = subprocess.run(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=TIMEOUT_S,
                env=self.environment(),
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None

    def environment(self) -> dict[str, str]:
        """The environment of a command: messages in English, whatever the user's language is."""
        return {**os.environ, "LC_ALL": "C", "PATH": self.path}

    def module_version(self, name: str) -> str | None:
        """`__version__` of a Python module that this interpreter can import; None when it cannot."""
        try:
            return str(importlib.import_module(name).__version__)
        except Exception:  # a broken installation raises anything: ImportError, OSError, RuntimeError
            return None
