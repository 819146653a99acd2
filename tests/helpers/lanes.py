"""Lanes that act between two blocks."""

from __future__ import annotations

from collections.abc import Callable

from morvit_deploy.measuring.cpu.lanes import BundleLane, BundleProcesses
from morvit_deploy.timing.samples import Block


def when(block: int, act: Callable[[], None]) -> Callable[[BundleProcesses, BundleLane, int, int], Block]:
    """`BundleProcesses.run` that acts once, before it takes that block."""
    run, todo = BundleProcesses.run, [act]

    def acting(device: BundleProcesses, lane: BundleLane, runs: int, warmup: int) -> Block:
        if len(lane.blocks) == block - 1 and todo:
            todo.pop()()
        return run(device, lane, runs, warmup)

    return acting
