"""A device of a fleet: its name, its kind, and the keywords of `bench` for it alone. No torch."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from morvit_deploy.errors import ConfigError, KeywordError, TargetError
from morvit_deploy.keywords import refuse_unknown
from morvit_deploy.measuring.browser.options import Browser
from morvit_deploy.measuring.core.devices import APPLE, DEVICES, find_device
from morvit_deploy.remote.host import Host

HERE = "this machine"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,29}")  # a column of a table on a console of 80 columns
AMOUNT = ("threads", "runs", "blocks", "warmup", "starts")
OWN = ("host", "browser", "tf32", *AMOUNT)  # keywords of `bench` that devices may differ in
_LOOPBACK = {"localhost", "::1"}


def kinds() -> list[str]:
    """Names of --device that measure several bundles in one call."""
    return [name for name, device in DEVICES.items() if device.measured_by != APPLE]


def keywords_of(kind: str) -> tuple[str, ...]:
    """Keywords of `bench` that a device of this kind may have for itself."""
    device = DEVICES[check_kind(kind)]
    lacks = {*device.lacks, *(() if device.remote else ("host",))}
    return tuple(name for name in OWN if name not in lacks)


def check_kind(kind: str) -> str:
    """TargetError for a device that does not exist, or that measures one bundle at a time."""
    if kind in DEVICES and kind not in kinds():
        raise TargetError(
            f"device {kind!r} measures one bundle at a time, in a run of its own: `bench --device {kind}`; a fleet "
            f"has devices of the kinds {', '.join(kinds())}"
        )
    if kind not in DEVICES:
        find_device(kind)
    return kind


@dataclass(frozen=True)
class FleetDevice:
    """`keywords` are those of `bench`; ConfigError or TargetError where they do not make a device."""

    name: str
    kind: str
    keywords: Mapping[str, Any]

    def __post_init__(self) -> None:
        if NAME.fullmatch(self.name) is None:
            raise ConfigError(
                f"name: got {self.name!r}, expected a letter and at most 29 further letters, digits, dots, hyphens "
                "or underscores"
            )
        try:
            refuse_unknown(self.keywords, keywords_of(self.kind))
        except KeywordError as error:
            raise KeywordError(f"device {self.name!r} ({self.kind}): {error}") from None
        find_device(self.kind, host=self.host is not None)

    @property
    def host(self) -> Host | None:
        """Where it is reached over SSH."""
        given = self.keywords.get("host")
        return Host(given) if isinstance(given, str) else given

    @property
    def browser(self) -> Browser:
        """Of kind browser: how it is opened."""
        given = self.keywords.get("browser")
        return given if isinstance(given, Browser) else Browser(given)

    @property
    def machine(self) -> str:
        """The machine that does the work, as far as names tell: what shares one is never measured at once."""
        if self.kind == "browser":
            return f"the browser of {self.name}" if self.browser.listen else HERE
        return HERE if self.host is None else _machine_of(self.host)


def _machine_of(host: Host) -> str:
    """`ssh://user@board:2222`, `user@board` and `board` are one machine."""
    if host.is_here:
        return HERE
    address = host.address.removeprefix("ssh://").rpartition("@")[2]
    name = (re.sub(r":\d+$", "", address) if host.address.startswith("ssh://") else address).lower()
    is_here = name in _LOOPBACK or name.startswith("127.") or name == socket.gethostname().lower()
    return HERE if is_here else name


def check_names(names: Iterable[str], source: object = "devices") -> None:
    """ConfigError for no device, or two of one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"{source}: got two devices called {name!r}; give each a name of its own")
        seen.add(name)
    if not seen:
        raise ConfigError(f"{source}: got no device, expected one or more")
