"""Lanes that act between two blocks."""

from __future__ import annotations

from collections.abc import Callable

from morvit_deploy.measuring.core.blocks import Lane


def when(block: int, act: Callable[[], None]) -> Callable[[Lane, int, int, int], None]:
    """`Lane.take` that acts once, before it takes that block."""
    take, todo = Lane.take, [act]

    def acting(lane: Lane, number: int, runs: int, warmup: int) -> None:
        if number == block and todo:
            todo.pop()()
        take(lane, number, runs, warmup)

    return acting
