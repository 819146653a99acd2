"""An sshd of the tests' own on loopback: a free port, own keys, own config, as the current user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from morvit_deploy.remote.host import Host

_START_S = 10.0


def why_not() -> str:
    """Why no sshd can run here; empty where one can."""
    missing = [tool for tool in ("ssh", "ssh-keygen") if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)} here; install OpenSSH's client"
    if sshd_path() is None:
        return "no sshd here; install OpenSSH's server (apt install openssh-server)"
    if os.getuid() == 0:
        try:
            pwd.getpwnam("sshd")  # as root, sshd drops its rights to this user
        except KeyError:
            return "run as root, and there is no user `sshd`; install OpenSSH's server"
    return ""


def sshd_path() -> str | None:
    """sshd wants to be called by its full path."""
    return shutil.which(
        "sshd", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/usr/local/sbin:/sbin"
    )


@dataclass
class Loopback:
    """A server in a folder; `host()` is how to reach it with the key that it accepts."""

    folder: Path
    port: int = 0
    lines: list[str] = field(default_factory=list)  # further ones of sshd_config
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in ("host_key", "user_key", "other_key"):
            self.make_key(name)
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        self.port = self.port or free_port()
        self.know()
        (self.folder / "ssh_config").write_text(self.config("user_key"))

    def make_key(self, name: str) -> None:
        """A new ed25519 key, in place of an old one."""
        place = self.folder / name
        place.unlink(missing_ok=True)
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", str(place)]
        subprocess.run(make, check=True, stdin=subprocess.DEVNULL)

    def config(self, key: str) -> str:
        """A client's config that names this server `board`."""
        settings = {
            "HostName": "127.0.0.1",
            "Port": self.port,
            "User": pwd.getpwuid(os.getuid()).pw_name,
            "IdentityFile": f'"{self.folder / key}"',
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": f'"{self.folder / "known_hosts"}"',
            "GlobalKnownHostsFile": "none",
        }
        return "Host board\n" + "".join(f"  {name} {value}\n" for name, value in settings.items())

    def know(self) -> None:
        """Write the server's key into known_hosts."""
        key = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}")

    def host(self, **changes: object) -> Host:
        """The server as `board` of the folder's ssh_config."""
        given: dict[str, object] = {"config": self.folder / "ssh_config"}
        return Host("board", **given | changes)  # type: ignore[arg-type]

    def start(self) -> None:
        """Run it until it listens."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its empty folder for dropped rights
        fixed = {
            "ListenAddress": "127.0.0.1",
            "Port": self.port,
            "HostKey": self.folder / "host_key",
            "AuthorizedKeysFile": self.folder / "authorized_keys",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "PermitUserEnvironment": "no",
        }
        said = {line.split()[0] for line in self.lines}
        text = [*self.lines, *(f'{name} "{value}"' for name, value in fixed.items() if name not in said)]
        (self.folder / "sshd_config").write_text("\n".join(text) + "\n")
        server = sshd_path()
        assert server is not None
        with (self.folder / "sshd.log").open("ab") as log:
            command = [server, "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _START_S
        while not listens(self.port):
            ended = self._process.poll() is not None
            assert not ended and time.monotonic() < end, (self.folder / "sshd.log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """End it and every connection, as a pulled cable would: sshd and the processes of its sessions only."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def drop(self) -> None:
        """End every connection; the server goes on."""
        self.signal(signal.SIGKILL, server=False)

    def quiet(self, within_s: float = _START_S) -> bool:
        """Is every connection closed, soon?"""
        assert self._process is not None
        end = time.monotonic() + within_s
        while descendants(self._process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        return not descendants(self._process.pid)

    def signal(self, number: int, *, server: bool = True) -> None:
        """To the processes of the sessions, and to the server."""
        assert self._process is not None
        sessions = [pid for pid in descendants(self._process.pid) if _name(pid).startswith("sshd")]
        for pid in (*([self._process.pid] if server else []), *sessions):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


needs_sshd = pytest.mark.skipif(bool(why_not()), reason=why_not() or "an sshd runs here")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Loopback]:
    """A running server whose folders have a blank in their names; `device` in it is for the agent."""
    server = Loopback(folder / "a board")
    (server.folder / "device").mkdir()
    server.start()
    yield server
    server.kill()


def descendants(pid: int) -> list[int]:
    """Of a process: children, their children, and so on."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def listens(port: int) -> bool:
    """Does something answer there?"""
    with socket.socket() as asked:
        asked.settimeout(1.0)
        return asked.connect_ex(("127.0.0.1", port)) == 0
