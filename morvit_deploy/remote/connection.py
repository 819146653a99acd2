"""One OpenSSH connection that all commands share, by a master of our own with a private socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from morvit_deploy.errors import TargetError
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.refusals import refusal, spoken

CONNECT_TIMEOUT_S = 10.0
ALIVE_INTERVAL_S, ALIVE_COUNT = 4, 2  # a dead network is noticed after at most 12 s
_AUTHENTICATION_S = 20.0  # after the connection: a slow board, a key on a token that wants a touch
_MARK = "morvit-ssh-"
_HOLD = "exec cat"  # ends with its stdin, and the connection with it, however this process ends
_POLL_S = 0.02
_END_S = 3.0
_FIXED = (  # ssh uses the first value of an option, so neither the user's options nor config files weaken these
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "LogLevel=DEBUG1",  # reports the fingerprint of a key that is refused
)


class Connection:
    """An ssh master; a context manager that closes every command that runs over it.

    Raises TargetError with the reason when it cannot connect. Commands are for a POSIX shell.
    """

    def __init__(self, host: Host, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self.host = host
        if shutil.which("ssh") is None:
            raise TargetError("`ssh` was not found; install OpenSSH's client (apt install openssh-client)")
        short = "/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()  # a socket's path: 104 bytes
        _sweep(Path(short))
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_MARK}{os.getpid()}-", dir=short))  # mode 0700
        self._socket, self._log = self._folder / "s", self._folder / "log"
        fixed = [word for option in _FIXED for word in ("-o", option)]
        alive = ("ServerAliveInterval", ALIVE_INTERVAL_S), ("ServerAliveCountMax", ALIVE_COUNT)
        limits = (("ConnectTimeout", max(1, round(timeout_s))), ("ConnectionAttempts", 1), *alive)
        tuned = [word for name, value in limits for word in ("-o", f"{name}={value}")]
        self._words = ["ssh", *fixed, *host.own_arguments, *tuned, "-S", str(self._socket)]
        with self._log.open("wb") as log:
            self._master = subprocess.Popen(
                [*self._words, "-o", "ControlMaster=yes", "-T", "--", host.address, _HOLD],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # no terminal: a jump host's ssh cannot ask for a password either
            )
        try:
            self._wait(timeout_s + _AUTHENTICATION_S)
        except BaseException:
            self.close()
            raise

    def start(self, command: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
        """Run a command on the device, with pipes to its stdin and stdout."""
        # without its master ssh would connect anew: the proxy command `false` prevents that
        over = ["-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-T", "--", self.host.address]
        return subprocess.Popen(
            [*self._words, *over, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )

    def lost(self, wait_s: float = 0.0) -> bool:
        """Has the connection ended? Waits up to `wait_s`, as the master may end later than its commands."""
        try:
            self._master.wait(wait_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def last_words(self) -> str:
        """The last line that ssh wrote."""
        lines = spoken(self._log.read_text(errors="replace")).splitlines()
        return lines[-1] if lines else "no reason given"

    def close(self) -> None:
        """End the connection; may be called again."""
        assert self._master.stdin is not None
        self._master.stdin.close()
        self._master.terminate()
        try:
            self._master.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._master.kill()
            self._master.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _wait(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while not self._socket.exists():
            if self._master.poll() is not None:
                raise refusal(self.host, self._log.read_text(errors="replace"))
            if time.monotonic() > end:
                raise TargetError(
                    f"{self.host.address} did not accept the login within {timeout_s:.0f} s; try "
                    f"`{self.host.command()}`"
                )
            time.sleep(_POLL_S)


class LocalConnection:
    """This machine in place of a device behind SSH: a shell here starts the same agent. It is never lost."""

    last_words = "no reason given"

    def __init__(self, host: Host) -> None:
        self.host = host

    def start(self, command: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
        """Run a command, with pipes to its stdin and stdout."""
        return subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )

    def lost(self, wait_s: float = 0.0) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """There is nothing to close."""

    def __enter__(self) -> LocalConnection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _sweep(folder: Path) -> None:
    """Remove the folders that killed runs of this user left."""
    for stale in folder.glob(f"{_MARK}*"):
        owner = stale.name[len(_MARK) :].split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)) and not stale.is_symlink():
            shutil.rmtree(stale, ignore_errors=True)  # of another user it cannot be removed
