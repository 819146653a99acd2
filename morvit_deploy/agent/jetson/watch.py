"""Reads power during a benchmark: while idle, then in the measured blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .energy import Block, Sample, energy_per_image
from .meters import Meter, open_meter
from .rails import Reading, Total, total_mw
from .system import System

IDLE_S = 5.0
INTERVAL_MS = 100  # the sensors average over some milliseconds to tens of them; faster costs processor time


class Watch:
    """Use as `with Watch() as watch:`, then `with watch.block(images=…):` around each measured block.

    Entering reads the power of the idle machine for `idle_s` seconds; where no power can be read it returns at once.
    """

    def __init__(
        self, system: System | None = None, *, idle_s: float = IDLE_S, interval_ms: int = INTERVAL_MS
    ) -> None:
        self.system = system or System()
        self.idle_s = idle_s
        self.interval_ms = interval_ms
        self.blocks: list[Block] = []
        self.labels: dict[str, list[Block]] = {}
        self._meter: Meter | None = None
        self._total: Total | None = None
        self._reasons: list[str] = []
        self._idle = (0.0, 0.0)

    def __enter__(self) -> Watch:
        self._meter, self._total, self._reasons = open_meter(self.system, self.interval_ms)
        if self._meter is not None:
            start_s = time.monotonic()
            time.sleep(self.idle_s)
            self._idle = (start_s, time.monotonic())
        return self

    def __exit__(self, *error: object) -> None:
        if self._meter is not None:
            if self.blocks and error[0] is None:
                self._meter.wait_past(self.blocks[-1].end_s)
            self._meter.stop()

    @contextmanager
    def block(self, images: int, label: str | None = None) -> Iterator[None]:
        """Around measured work of so many images; not counted if it raises. Blocks of a label are also kept apart."""
        start_s = time.monotonic()
        yield
        self.blocks.append(Block(start_s, time.monotonic(), images))
        if label is not None:
            self.labels.setdefault(label, []).append(self.blocks[-1])

    def energy(self, label: str | None = None) -> dict[str, Any]:
        """mJ per image, idle subtracted, and how it was measured; `per_image_mj` is None with a `reason` otherwise.

        Of all blocks, or of those of a label.
        """
        if self._meter is None or self._total is None:
            return {
                "per_image_mj": None,
                "reason": "no input power can be read here: "
                + "; ".join(self._reasons or ["nothing was watched"]),
                "source": None,
            }
        total, samples = self._total, self._samples()
        return {
            **energy_per_image(samples, self._idle, self.blocks if label is None else self.labels[label]),
            "source": self._meter.name,
            "rails": list(total.rails),
            "rails_why": total.why,
            "skipped": self._meter.skipped + len(self._meter.readings) - len(samples),
            "not_used": self._reasons,
        }

    def raw(self) -> dict[str, Any] | None:
        """The samples behind the energy: input power in mW at seconds from the start, idle time and blocks."""
        if self._meter is None:
            return None
        zero_s = self._idle[0]
        blocks = {
            label: [[block.start_s - zero_s, block.end_s - zero_s, block.images] for block in own]
            for label, own in self.labels.items()
        }
        return {
            "samples": [[sample.at_s - zero_s, sample.mw] for sample in self._samples()],
            "idle": [0.0, self._idle[1] - zero_s],
            "blocks": blocks,  # start, end, images
        }

    def seen(self) -> dict[str, Any]:
        """Highest temperature and range of clocks in the blocks; None where the meter does not report them."""
        inside = [reading for at_s, reading in self._readings() if self._measured(at_s)]
        gpu = [clock for reading in inside for clock in reading.gpu_mhz]
        emc = [reading.emc_mhz for reading in inside if reading.emc_mhz is not None]
        heat = [value for reading in inside for value in reading.temperatures_c.values()]
        return {
            "hottest_c": max(heat, default=None),
            "gpu_mhz": [min(gpu), max(gpu)] if gpu else None,
            "emc_mhz": [min(emc), max(emc)] if emc else None,
        }

    def _samples(self) -> list[Sample]:
        """Input power of every reading that has all of its rails."""
        if self._total is None:
            return []
        total = self._total
        powers = [(at_s, total_mw(reading, total)) for at_s, reading in self._readings()]
        return [Sample(at_s, float(mw)) for at_s, mw in powers if mw is not None]

    def _readings(self) -> list[tuple[float, Reading]]:
        return [] if self._meter is None else self._meter.readings

    def _measured(self, at_s: float) -> bool:
        return any(block.start_s <= at_s <= block.end_s for block in self.blocks)
