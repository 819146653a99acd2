"""How a browser reaches the bundles, and what runs them there. No torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from morvit_deploy.errors import ConfigError
from morvit_deploy.keywords import did_you_mean

Backend = Literal["wasm", "webgpu"]


@dataclass(frozen=True)
class Invitation:
    """What a person opens in the browser: the URL first, then the same at other addresses of this machine."""

    urls: tuple[str, ...]
    listens: bool  # on the local network, so that a phone can open it


def print_urls(invitation: Invitation) -> None:
    """Print the URLs on stderr."""
    print("open in the browser to measure:", *invitation.urls, sep="\n  ", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Browser:
    """The browser of `bench(…, device="browser")`; by default any that opens the printed URL on this machine.

    `program` starts a browser of the Chromium family without a window: chromium, chrome, edge, or a path.
    """

    program: str | None = None
    backend: Backend = "wasm"
    listen: bool = False  # on the local network, not on loopback only
    port: int = 0  # 0: a free one
    certificate: Path | None = None  # PEM file of a certificate and its key: serve over HTTPS
    runtime: Path | None = None  # folder of the npm package onnxruntime-web
    flags: tuple[str, ...] = ()  # further ones for `program`
    show: Callable[[Invitation], None] = print_urls
    waiting: Callable[[], None] = lambda: None  # called again and again until the page is open; may raise

    def __post_init__(self) -> None:
        """ConfigError for a backend or a port that does not exist, and for options that exclude each other."""
        if self.backend not in get_args(Backend):
            hint = did_you_mean(self.backend, get_args(Backend), {"gpu": "webgpu", "cpu": "wasm"})
            raise ConfigError(f"got backend {self.backend!r}, expected wasm or webgpu{hint}")
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"got port {self.port}, expected 0 (a free one) to 65535")
        if self.program is not None and (self.listen or self.certificate is not None):
            raise ConfigError(
                "--browser starts a browser on this machine; --listen and --certificate are for another device. "
                "Leave out one of them"
            )
