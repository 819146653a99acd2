"""A bundle in a worker of the page, as `process.Worker` is one in a process here. No torch."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from morvit_deploy.agent.core.child import ANSWER_TIMEOUT_S, START_TIMEOUT_S
from morvit_deploy.agent.host.processor import Usage
from morvit_deploy.agent.parity import expected_answers, gaps
from morvit_deploy.errors import LostError
from morvit_deploy.machine.agent_errors import own_errors
from morvit_deploy.measuring.browser.page import Page
from morvit_deploy.measuring.core.inputs import Subject, expected_file
from morvit_deploy.measuring.cpu.process import BundleProcess, block_of, run_request
from morvit_deploy.timing.samples import Block, Start

TICKS = 50  # of the browser's clock in a sample, so that its rounding is at most 2 %
MOST_GROUPED = 1 << 20
FIRST_LOOK = 3  # samples from which the runs of a sample are computed

ReadUsage = Callable[[], "Usage | None"]  # of the browser's processes, where they are known


@dataclass(frozen=True)
class Place:
    """A bundle as the page downloads it: a folder of the server, and the files in it."""

    subject: Subject
    folder: str
    files: tuple[str, ...]


class PageWorker(BundleProcess):
    """A bundle in a worker of its own. Raises LostError when the page is closed, BundleError for a refused bundle."""

    _numbers = itertools.count(1)

    def __init__(
        self,
        page: Page,
        place: Place,
        options: dict[str, Any],
        usage: ReadUsage = lambda: None,
    ) -> None:
        self._page, self._place, self._usage = page, place, usage
        self._number = next(self._numbers)
        self._group: int | None = None
        *_, height, width, channels = np.load(place.subject.pixels, mmap_mode="r", allow_pickle=False).shape
        request = {
            "do": "load",
            "bundle": place.folder,
            "files": place.files,
            "round": place.subject.batch * height * width * channels,
            **options,
        }
        reply = self._ask(request, f"loading {place.subject.bundle}", START_TIMEOUT_S)
        self.start = Start(reply["cold_start_ms"], reply["load_ms"], reply["first_run_ms"], None)
        self.tick_ms, self.threads = float(reply["tick_ms"]), reply["threads"]
        self.version, self.warnings = str(reply["version"]), tuple(reply["warnings"])

    @property
    def group(self) -> int:
        """Runs of a sample: enough for TICKS of the browser's clock. Measured on first use."""
        if self._group is None:
            self._group = 1
            while (more := grouped(self._sample_ms(), self._group, self.tick_ms)) > self._group:
                self._group = more
        return self._group

    def run(self, runs: int, warmup: int, order: Sequence[int] | None = None) -> Block:
        """`runs` samples, each the mean of `group` consecutive runs of one round."""
        return self._run(runs, warmup, order, self.group)

    def parity(self, rounds: int) -> dict[str, Any]:
        doing = f"comparing its {self._place.subject.manifest.output}"
        reply = self._ask({"do": "answers", "rounds": rounds}, doing, START_TIMEOUT_S)
        with own_errors():
            wanted = expected_answers(expected_file(self._place.subject.pixels))[1]
            returned = np.array(reply["answers"], dtype=np.float64)[: len(wanted)]  # null: NaN
            return gaps(returned, wanted.reshape(len(wanted), -1))

    def memory_mib(self) -> dict[str, float]:
        reply = self._ask({"do": "memory"}, "reading memory", ANSWER_TIMEOUT_S)
        return {"webassembly": float(reply["webassembly"])}

    def close(self) -> None:
        if self._page.is_open:
            with contextlib.suppress(LostError):
                self._ask({"do": "close"}, "closing", ANSWER_TIMEOUT_S)

    def _sample_ms(self) -> float:
        assert self._group is not None
        return self._group * median(self._run(FIRST_LOOK, 1, None, self._group).ms)

    def _run(self, runs: int, warmup: int, order: Sequence[int] | None, group: int) -> Block:
        request, doing, timeout_s = run_request(self.start, runs * group, warmup * group, order)
        request |= {
            "do": "run",
            "runs": runs,
            "warmup": warmup,
            "order": order and list(order),
            "group": group,
        }
        before = self._usage()
        reply = self._ask(request, doing, timeout_s)
        after = self._usage()
        others = before.others_percent(after) if before and after else None
        return block_of(reply, others)

    def _ask(self, request: dict[str, Any], doing: str, timeout_s: float) -> dict[str, Any]:
        name = str(self._place.subject.bundle)
        return self._page.ask({**request, "worker": self._number}, doing, timeout_s, name)


def grouped(sample_ms: float, group: int, tick_ms: float) -> int:
    """How many runs a sample needs, if `group` of them took `sample_ms`; `group` itself if it is enough."""
    needed = TICKS * tick_ms
    if sample_ms >= needed or group >= MOST_GROUPED:
        return group
    if sample_ms < 2 * tick_ms:  # too short to tell
        return group * TICKS
    return min(MOST_GROUPED, max(group + 1, math.ceil(1.2 * group * needed / sample_ms)))
