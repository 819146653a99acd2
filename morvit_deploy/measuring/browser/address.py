"""The URLs at which other devices reach this machine. No torch."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import psutil

from morvit_deploy.errors import TargetError
from morvit_deploy.measuring.browser.options import Invitation
from morvit_deploy.measuring.browser.server import LOOPBACK, PageServer

_ANYWHERE = ("192.0.2.1", 9)  # reserved for documentation: choosing a route to it sends nothing


def invitation(server: PageServer, *, listens: bool, secure: bool) -> Invitation:
    """The page's URLs; TargetError where other devices cannot reach this machine."""
    scheme = "https" if secure else "http"
    hosts = ordered(_addresses(), _route()) if listens else [LOOPBACK]
    if not hosts:
        raise TargetError(
            "this machine has no network address; connect it to the device's network, or leave out --listen"
        )
    urls = tuple(f"{scheme}://{host}:{server.port}/{server.token}/" for host in hosts)
    return Invitation(urls, listens)


def ordered(addresses: Iterable[str], first: str | None) -> list[str]:
    """IPv4 addresses that others can reach; first the one that leads to the internet."""
    usable = [one for one in dict.fromkeys(addresses) if not _is_private_to_here(one)]
    return sorted(usable, key=lambda one: one != first)


def _is_private_to_here(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_link_local


def _addresses() -> list[str]:
    found = psutil.net_if_addrs().values()
    return [one.address for many in found for one in many if one.family == socket.AF_INET]


def _route() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
        except OSError:
            return None
        return str(probe.getsockname()[0])
