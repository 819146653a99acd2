"""Measures bundles in a browser: serves a page, and has it run what the loop asks for. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from morvit_deploy.files import temporary
from morvit_deploy.measuring.browser.conditions import check_browser, found, remarks
from morvit_deploy.measuring.browser.files import page_files, place_of
from morvit_deploy.measuring.browser.opening import open_page
from morvit_deploy.measuring.browser.options import Browser
from morvit_deploy.measuring.browser.page import Page
from morvit_deploy.measuring.browser.processes import PageProcesses
from morvit_deploy.measuring.browser.runtime import find_runtime
from morvit_deploy.measuring.browser.server import serving
from morvit_deploy.measuring.browser.views import last_words
from morvit_deploy.measuring.core.request import BenchRequest, settings
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.cpu.lanes import BundleLane, not_measured, parities
from morvit_deploy.timing.loop import Stages, measure
from morvit_deploy.timing.result import warnings_about

TIMED = (
    "warm runs: uint8 pixels in memory to every output, copies included, decoding of files excluded; cold start: new "
    "worker of the page to first result, with the runtime's modules and the compilation of its WebAssembly, files "
    "already downloaded; by the browser's clock, network excluded"
)


def bench_browser(request: BenchRequest, browser: Browser) -> BenchResult:
    """`bench` in a browser. LostError when the page is closed before the end."""
    with temporary("bench") as scratch, ExitStack() as stack:
        subjects = request.subjects(scratch)
        runtime = find_runtime(browser.runtime, browser.backend, request.stages.stage)
        files = page_files(runtime)
        offered = [place_of(subject, str(number), scratch) for number, subject in enumerate(subjects)]
        for _, own in offered:
            files |= own
        server = stack.enter_context(
            serving(files, listen=browser.listen, port=browser.port, certificate=browser.certificate)
        )
        program = open_page(server, browser, request.stages, stack)
        with _told(server.page):
            check_browser(server.page, browser.backend, request.threads)
            places = [place for place, _ in offered]
            device = PageProcesses(server, places, browser.backend, program, request, stack)
            result = _measured(request, device, browser.backend)
            server.page.finish(last_words(result))
    return result


def _measured(request: BenchRequest, device: PageProcesses, backend: str) -> BenchResult:
    page = device.server.page
    lanes = [BundleLane.of(place.subject) for place in device.places]
    conditions = measure(device, lanes, request.amount, _shown_there(request.stages, page))
    measured = tuple(lane.measured() for lane in lanes)
    last = {lane.name: device.last_of(lane) for lane in lanes}
    conditions |= {**settings(request.source, request.amount, TIMED), "parity": parities(lanes)}
    conditions |= found(page, last, backend, device.program)
    warnings = (
        *warnings_about(conditions, measured),
        *not_measured(lanes, device),
        *remarks(page, device.workers, backend, request.threads),
    )
    return BenchResult(request.device, measured, conditions, warnings)


@contextmanager
def _told(page: Page) -> Iterator[None]:
    """Show on the page why the measurement ended early."""
    try:
        yield
    except BaseException as error:  # an interrupt, too
        said = str(error) or "The measurement was interrupted in the terminal."
        page.finish({"do": "end", "good": False, "text": said, "rows": []})
        raise


def _shown_there(stages: Stages, page: Page) -> Stages:
    """The same, and the page shows them, too."""
    done = [0.0]

    def stage(text: str) -> None:
        stages.stage(text)
        page.say({"do": "stage", "text": text[:1].upper() + text[1:], "share": done[0] or None})

    def share(now: float) -> None:
        stages.share(now)
        done[0] = now

    return replace(stages, stage=stage, share=share)
