"""Brings a browser to the page: starts one, or shows a person the URL. No torch."""

from __future__ import annotations

import time
from contextlib import ExitStack

from morvit_deploy.errors import LostError, TargetError
from morvit_deploy.measuring.browser.address import invitation
from morvit_deploy.measuring.browser.options import Browser
from morvit_deploy.measuring.browser.page import Page
from morvit_deploy.measuring.browser.program import WEBGPU_FLAGS, Program, started
from morvit_deploy.measuring.browser.server import PageServer
from morvit_deploy.timing.loop import Stages

PROGRAM_S = 60.0  # until a started browser has opened the page
HELLO_S = 20.0  # from the page's hello to its stream of requests
WAIT_S = 0.2


def open_page(server: PageServer, browser: Browser, stages: Stages, stack: ExitStack) -> Program | None:
    """Return once the page is connected; the browser that was started for it, which `stack` ends.

    TargetError when the browser does not open the page, LostError when the page is closed at once.
    """
    invited = invitation(server, listens=browser.listen, secure=browser.certificate is not None)
    program = None
    if browser.program is None:
        browser.show(invited)
        stages.stage("waiting for the page to be opened")
    else:
        stages.stage(f"starting {browser.program}")
        flags = (*(WEBGPU_FLAGS if browser.backend == "webgpu" else ()), *browser.flags)
        program = stack.enter_context(started(browser.program, invited.urls[0], flags))
    _wait(server.page, program, browser)
    return program


def _wait(page: Page, program: Program | None, browser: Browser) -> None:
    """For a person as long as it takes, for a started browser PROGRAM_S."""
    begun = time.monotonic()
    while not page.wait(WAIT_S):
        browser.waiting()
        if program is not None:
            program.check()
            if time.monotonic() - begun > PROGRAM_S:
                raise TargetError(
                    f"{program.path} did not open the page within {PROGRAM_S:.0f} s; leave out --browser and open "
                    "the printed URL in a browser"
                )
        if page.greeted_s is not None and time.monotonic() - page.greeted_s > HELLO_S:
            raise LostError("the page was closed before the measurement began; repeat it with the new URL")
