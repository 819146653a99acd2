"""`morvit-deploy bench --device browser`: the browser of its options, and the URL and QR code in the terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from morvit_deploy.cli.shared.bench import BenchWords
from morvit_deploy.cli.shared.bench_options import Browsing
from morvit_deploy.cli.shared.console import note, stderr

WHITE_ON_BLACK, RESET = (
    "\x1b[97;40m",
    "\x1b[0m",
)  # whatever the colors of the terminal: cameras want dark on light

if TYPE_CHECKING:
    from morvit_deploy.measuring.browser.options import Browser, Invitation


def browser_of(words: BenchWords) -> Browser | None:
    """The browser to measure in; None for another device. ConfigError for options that exclude each other."""
    return opened_by(words.browsing, show) if words.device == "browser" else None


def opened_by(typed: Browsing, show: Callable[[Invitation], None]) -> Browser:
    """The browser of these options, opened by whom `show` shows its URL to."""
    from morvit_deploy.measuring.browser.options import Browser

    return Browser(
        program=typed.browser,
        backend=typed.backend or "wasm",
        listen=typed.listen,
        port=typed.port or 0,
        certificate=typed.certificate,
        runtime=typed.web_runtime,
        show=show,
    )


def show(invitation: Invitation) -> None:
    """Print the URL, for a phone also as a QR code."""
    first, *others = invitation.urls
    where = "on the phone" if invitation.listens else "in a browser on this machine"
    print(f"open {where}, once: {first}", file=sys.stderr, flush=True)
    if others:
        note(f"at other addresses of this machine: {' '.join(others)}")
    if invitation.listens:
        _show_code(first)


def _show_code(url: str) -> None:
    """The QR code where stderr is a terminal that can show it."""
    from morvit_deploy.machine.extras import install_line, is_missing

    console = stderr()
    if not console.is_terminal or not console.encoding.startswith("utf"):
        return
    if is_missing("segno"):
        note(f"run `{install_line('browser')}` to see it as a QR code")
        return
    import segno

    drawn = io.StringIO()
    segno.make(url, micro=False).terminal(drawn, compact=True)
    for line in drawn.getvalue().splitlines():
        print(f"{WHITE_ON_BLACK}{line}{RESET}", file=sys.stderr)
