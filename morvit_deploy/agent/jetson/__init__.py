"""Conditions of a measurement on an NVIDIA Jetson. Standard library only: it travels to the device.

before = describe()
with Watch(idle_s=5) as watch:
    with watch.block(images=8):
        run()
energy, doubts = watch.energy(), warnings(before, read_state())
"""

from __future__ import annotations

from .conditions import describe, hints, read_state, warnings
from .heat import throttled
from .identity import is_jetson
from .system import System
from .watch import Watch

__all__ = [
    "System",
    "Watch",
    "describe",
    "hints",
    "is_jetson",
    "read_state",
    "throttled",
    "warnings",
]
