"""A browser of the Chromium family, started without a window and with a profile of its own. No torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from morvit_deploy.agent.host.processor import Usage
from morvit_deploy.errors import TargetError
from morvit_deploy.files import temporary
from morvit_deploy.timing.conditions import usage

PROGRAMS = {  # name to the commands and the places of macOS and Windows that may be it
    "chromium": ("chromium", "chromium-browser", "/Applications/Chromium.app/Contents/MacOS/Chromium"),
    "chrome": (
        *("google-chrome", "google-chrome-stable", "chrome"),
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    ),
    "edge": (
        *("microsoft-edge", "microsoft-edge-stable", "msedge"),
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
        r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
    ),
}
FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-extensions",
    "--disable-sync",
    "--disable-component-update",  # no downloads during a measurement
    "--disable-background-networking",
    "--disable-dev-shm-usage",  # containers have 64 MB of it
)
WEBGPU_FLAGS = ("--enable-unsafe-webgpu",)  # Linux has it behind this flag
SHOWN_LINES = 5
CLOSE_S = 5.0


def find_program(name: str) -> str:
    """The path of a browser; TargetError when it is not installed."""
    commands = PROGRAMS.get(name.lower(), (name,))
    if found := next((path for command in commands if (path := shutil.which(command))), None):
        return found
    installed = [own for own in PROGRAMS if any(map(shutil.which, PROGRAMS[own]))]
    known = (
        f"found on this machine: {', '.join(installed)}" if installed else "none was found on this machine"
    )
    raise TargetError(
        f"browser {name!r} is not installed; --browser starts {', '.join(PROGRAMS)} or a path of one ({known}). Or "
        "leave out --browser and open the printed URL in any browser"
    )


class Program:
    """A running browser with its profile in a temporary folder."""

    def __init__(self, path: str, url: str, flags: Sequence[str], profile: Path) -> None:
        self.path, self._log = path, profile / "stderr.txt"
        # Chromium refuses to start for root with its sandbox; it opens nothing but this page
        own = ("--no-sandbox",) if getattr(os, "geteuid", lambda: 1)() == 0 else ()
        command = [path, *FLAGS, *own, *flags, f"--user-data-dir={profile / 'profile'}", url]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def check(self) -> None:
        """TargetError with its last lines if it has ended."""
        if (status := self._process.poll()) is None:
            return
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
        said = "\n".join(f"  {line}" for line in lines) or "  (it printed nothing)"
        raise TargetError(
            f"{self.path} ended with status {status} before it opened the page; its last lines:\n{said}\n"
            "Leave out --browser and open the printed URL in any browser"
        )

    def usage(self) -> Usage:
        """Processor time of the machine and of all processes of the browser."""
        machine, own_s = usage(self._process.pid), 0.0
        for one in self._family():
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                own_s += times.user + times.system
        return replace(machine, own_s=own_s)

    def close(self) -> None:
        """End it and the processes that it started."""
        family = self._family()
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(one)
            family = psutil.wait_procs(family, CLOSE_S)[1]
        self._process.wait()

    def _family(self) -> list[psutil.Process]:
        """Its processes that live."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        return []


@contextlib.contextmanager
def started(name: str, url: str, flags: Sequence[str]) -> Iterator[Program]:
    """The browser with the page open, until the block ends."""
    path = find_program(name)
    with temporary("browser") as profile:
        try:
            program = Program(path, url, flags, profile)
        except OSError as error:
            raise TargetError(f"cannot start {path}: {error.strerror}; give --browser a program") from None
        try:
            yield program
        finally:
            program.close()
