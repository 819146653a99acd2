"""What the browser offers, and under which conditions it measured. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from morvit_deploy.agent.runtimes import checked_threads
from morvit_deploy.errors import TargetError
from morvit_deploy.machine.agent_errors import own_errors
from morvit_deploy.machine.this import versions
from morvit_deploy.measuring.browser.about import is_mobile, machine, named
from morvit_deploy.measuring.browser.page import Page
from morvit_deploy.measuring.browser.program import Program
from morvit_deploy.measuring.browser.server import LOOPBACK
from morvit_deploy.measuring.browser.worker import PageWorker
from morvit_deploy.timing.conditions import read_conditions

UNKNOWN = ("load_average_before", "cpu_used_before_percent", "cpu_mhz", "cpu_governor")  # to a page


def check_browser(page: Page, backend: str, threads: int | None) -> None:
    """TargetError where the browser lacks what the runtime requires, or for far more threads than its cores."""
    about = page.about
    if not about.get("simd"):
        raise TargetError(
            f"{page.browser} has no WebAssembly SIMD, and onnxruntime-web has no build without it; update the "
            "browser, or measure in another one"
        )
    with own_errors():
        checked_threads(threads, about.get("cores") or 1)
    if backend == "webgpu" and not about.get("gpu"):
        why = "" if about.get("secure") else ", which needs a page from localhost or https:// (--certificate)"
        raise TargetError(f"{page.browser} offers no WebGPU adapter{why}; measure with --backend wasm")


def before(page: Page, program: Program | None) -> dict[str, Any]:
    """The conditions of this machine if the browser runs here, else what the page knows of its own."""
    is_near = page.address == LOOPBACK and not is_mobile(page.user_agent)
    if program is not None or is_near:
        return read_conditions()
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"date": date, "machine": machine(page.about), **dict.fromkeys(UNKNOWN)}


def found(
    page: Page, workers: Mapping[str, PageWorker], backend: str, program: Program | None
) -> dict[str, Any]:
    """Browser, threads, SIMD, isolation, backend and clock; `workers` by bundle."""
    first, about = next(iter(workers.values())), page.about
    name, version = named(page.user_agent, about.get("details"))
    return {
        "threads": first.threads,
        "versions": {**versions(("morvit-deploy",)), "onnxruntime-web": first.version, name: version},
        "browser": {
            "name": name,
            "version": version,
            "user_agent": page.user_agent,
            "system": machine(about)["system"],
            "backend": backend,
            "simd": about.get("simd"),
            "threads": about.get("threads"),  # may a page use several here?
            "cross_origin_isolated": about.get("isolated"),
            "gpu": about.get("gpu"),
            "headless": program is not None,
            "timer_ms": first.tick_ms,
            "runs_per_sample": {bundle: worker.group for bundle, worker in workers.items()},
        },
    }


def remarks(page: Page, workers: Sequence[PageWorker], backend: str, threads: int | None) -> list[str]:
    """What makes the figures doubtful, or lower than they could be."""
    said = dict.fromkeys(sentence for worker in workers for sentence in worker.warnings)
    sentences = [f"{page.browser}: {sentence}" for sentence in said]
    if backend == "wasm" and threads is None and not page.about.get("threads"):
        sentences.append(
            f"{page.browser} measured with one thread: browsers allow more only on pages from localhost or https://; "
            "--certificate serves the page over https://"
        )
    if page.was_hidden:
        sentences.append(
            "the page was in the background meanwhile, where browsers slow pages down; measure again"
        )
    return sentences
