"""A session with the agent on a device: set up, used, set up again after a drop, and removed."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from morvit_deploy.agent.core.child import ANSWER_TIMEOUT_S
from morvit_deploy.errors import BundleError, LostError, TargetError
from morvit_deploy.remote.connection import CONNECT_TIMEOUT_S, Connection, LocalConnection
from morvit_deploy.remote.dialogue import Dialogue, Dropped
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.loader import NO_PYTHON, agent_archive, load_command, receive_command, send_command
from morvit_deploy.remote.shipment import Shipment, size_of, write_to

RECONNECT_S = 10.0  # with the 15 s after which a silent device counts as gone: less than 30 s in all
RETRY_S = 1.0
MOST_DROPS = 3  # in one session: a network that drops more often makes the figures useless
_TRY_S = 4.0  # for one attempt to reconnect
_LOAD_TIMEOUT_S = 30.0  # the archive is small, but a board may have to start Python from a slow card
_UPLOAD_SILENT_S = 600.0  # a tar stream has no beats; ssh itself ends it when the network is lost

T = TypeVar("T")

Settle = Callable[["Session"], Shipment]  # returns what else to send, given what the new agent has
Act = Callable[["Session"], None]


class Session:
    """The agent on `host`, with the files of `shipment` in its folder; a context manager that leaves nothing there.

    Every agent, including one set up after a drop, is checked for the runtimes of `targets`, of the releases in
    `required` or newer; then `settle` is called, which may add to the shipment, and `prepare` once the files are
    there. `hear` is called with the agent's events.
    Raises TargetError when the device cannot be used, LostError when it is lost during its work.
    """

    def __init__(
        self,
        host: Host,
        shipment: Shipment,
        targets: Sequence[str],
        tell: Callable[[str], None] = lambda stage: None,
        *,
        settle: Settle = lambda session: {},
        prepare: Act = lambda session: None,
        hear: Callable[[dict[str, Any]], None] = lambda event: None,
        required: Mapping[str, str] | None = None,
    ) -> None:
        self.host, self._own, self._targets, self._tell = host, shipment, tuple(targets), tell
        self._required = dict(required or {})
        self._shipment, self._settle, self._prepare, self._hear = shipment, settle, prepare, hear
        self.versions: dict[str, str] = {}
        self.generation = 0  # of the agent: a new one has no workers
        self.drops: list[str] = []  # why it was set up again
        self.swept = 0  # folders of earlier agents that were removed
        self.started_s = 0.0  # from the command to the agent's first line, archive sent
        self._connection: Connection | LocalConnection | None = None
        self._dialogue: Dialogue | None = None
        self._prepares = False
        try:
            self._open(CONNECT_TIMEOUT_S)
        except Dropped as drop:
            self.close()
            error = LostError if self._prepares else TargetError
            raise error(f"{host.address} was lost {drop}; nothing was measured yet") from None
        except BaseException:
            self.close()
            raise

    def ask(self, request: dict[str, Any], doing: str, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        """A request to the agent and its reply; Dropped where the device is gone."""
        if self._dialogue is None:
            raise Dropped(f"before {doing}")
        try:
            return _checked(self._dialogue.ask(request, doing, timeout_s))
        except TargetError:
            if self._dialogue.ended:
                self.close(dropped=True)
            raise

    @property
    def is_open(self) -> bool:
        """Is there an agent?"""
        return self._dialogue is not None

    def resuming(self, action: Callable[[], T]) -> T:
        """Run an action; after a drop set the agent up again and repeat the action."""
        while True:
            try:
                return action()
            except Dropped as drop:
                self._reopen(str(drop))

    def fetch(self, place: str, names: Sequence[str], into: Path) -> None:
        """Copy files of a folder inside the agent's; Dropped when the connection is lost."""
        if self._connection is None:
            raise Dropped("before fetching files")
        sender = self._connection.start(send_command(self.host, self.folder, place, names))
        try:
            assert sender.stdout is not None
            with tarfile.open(fileobj=sender.stdout, mode="r|") as archive:
                for member in archive:
                    if member.name not in names or not member.isfile():
                        raise TargetError(
                            f"{self.host.address} sent {member.name!r}, expected one of {names}"
                        )
                    source = archive.extractfile(member)
                    assert source is not None
                    with source, (into / member.name).open("wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
                    self._tell(f"fetched {member.name}, {member.size / 2**20:.1f} MiB")
        except (tarfile.TarError, EOFError) as error:
            raise Dropped(f"while fetching files: {error}") from None
        finally:
            sender.kill()
            sender.communicate()
        if absent := [name for name in names if not (into / name).is_file()]:
            raise Dropped(f"while fetching files: {', '.join(absent)} did not arrive")

    def close(self, *, dropped: bool = False) -> None:
        """Have the agent remove its folder and end; may be called again. A dropped agent ends by itself."""
        dialogue, connection = self._dialogue, self._connection
        self._dialogue = self._connection = None
        if dialogue is not None:
            if not dropped:
                dialogue.finish()
            dialogue.close()
        if connection is not None:
            connection.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self, timeout_s: float) -> None:
        self._tell(f"connecting to {self.host.address}")
        self._connection = (
            LocalConnection(self.host) if self.host.is_here else Connection(self.host, timeout_s)
        )
        archive, started = agent_archive(), time.perf_counter()
        self._dialogue = Dialogue(self._connection, load_command(self.host, len(archive)))
        self._dialogue.hear = self._hear
        self._dialogue.send(archive)
        try:
            hello = _checked(self._dialogue.reply("starting", _LOAD_TIMEOUT_S, silent_s=_LOAD_TIMEOUT_S))
        except TargetError as error:
            raise self._no_agent(error) from None
        self.started_s = time.perf_counter() - started
        self._dialogue.begin_beats()
        self.folder, self.swept = hello["hello"], self.swept + hello["swept"]
        self._boots = (*getattr(self, "_boots", ()), hello["boot"])
        for target in self._targets:
            check = {"do": "check", "target": target, "required": self._required}
            self.versions |= self.ask(check, "checking versions")
        self._shipment = {**self._own, **self._settle(self)}
        self._upload()
        self._prepares = True
        self._prepare(self)
        self.generation += 1

    def _no_agent(self, error: TargetError) -> TargetError:
        dialogue = self._dialogue
        if dialogue is None or "ended while" not in str(error) or dialogue.status != NO_PYTHON:
            return error
        return TargetError(
            f"there is no {self.host.python} on {self.host.address}; install Python 3.8 or newer there, or give "
            f"its path with --python:\n{dialogue.stderr()}"
        )

    def _upload(self) -> None:
        total, done = size_of(self._shipment), 0
        assert self._connection is not None

        def sent(size: int) -> None:
            nonlocal done
            done += size
            self._tell(f"sending {done / 2**20:.1f} of {total / 2**20:.1f} MiB to {self.host.address}")

        receiver = Dialogue(self._connection, receive_command(self.host, self.folder))
        try:
            with contextlib.suppress(OSError):  # the device closed it: its reply has the reason
                write_to(self._shipment, receiver.stream, sent)
            receiver.finish()
            reply = _checked(receiver.reply("receiving files", _UPLOAD_SILENT_S, silent_s=_UPLOAD_SILENT_S))
        finally:
            receiver.close()
        if reply["received"] != total:
            raise TargetError(
                f"{self.host.address} received {reply['received']:,} of {total:,} bytes; repeat the command"
            )

    def _reopen(self, why: str) -> None:
        """Reconnect within RECONNECT_S after a drop, or raise LostError."""
        self.close(dropped=True)
        self.drops.append(why)
        end, last = time.monotonic() + RECONNECT_S, "no attempt was made"
        self._tell(f"{self.host.address} was lost {why}; reconnecting")
        while (left := end - time.monotonic()) > 0 and len(self.drops) <= MOST_DROPS:
            try:
                self._open(max(1.0, min(_TRY_S, left)))
            except (Dropped, TargetError) as error:
                last = str(error)
                self.close(dropped=True)
                time.sleep(min(RETRY_S, max(0.0, end - time.monotonic())))
                continue
            except BaseException:
                self.close()
                raise
            if self._boots[-1] != self._boots[0]:
                self.close()
                raise LostError(
                    f"{self.host.address} was lost {why}: it restarted during the measurement; check "
                    "its power supply and temperature, then repeat"
                )
            return
        tries = f"dropped {len(self.drops)} times" if len(self.drops) > MOST_DROPS else f"then {last}"
        raise LostError(
            f"{self.host.address} was lost {why}; {tries}. What the agent left there is removed on the next contact"
        )


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply, or the error that it reports."""
    if "error" in reply:
        raise (BundleError if reply.get("kind") == "refused" else TargetError)(reply["error"])
    return reply
