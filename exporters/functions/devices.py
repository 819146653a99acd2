"""What Apple's systems and devices are held to, and what measures a target's models there.

numpy and the standard library alone: benchmark projects carry this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

# Largest |Δlogit| that rounding explains, as a part of max(1, max |logit|).
# fp32: sums in another order. fp16: the Neural Engine also accumulates in fp16; wrong attention moves logits by their
# own size. A token whose routing is a tie may flip and move one picture; wrong arithmetic moves them all. So the
# median picture is compared.
TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2}


@dataclass(frozen=True)
class Model:
    """What a Mac loads of a target's bundle."""

    suffix: str  # of its file's name
    runtime: str  # place of the `AppleRuntime` that measures it, see measuring/apple/running.py
    ios: int = 0  # the oldest system that loads it; 0: the manifest's entry says


MODELS = {
    "coreml": Model(".mlpackage", "morvit_deploy.measuring.apple.core_ml:RUNTIME"),
    "coreai": Model(".aimodel", "morvit_deploy.exporters.coreai.mac:RUNTIME", ios=27),
}


@dataclass(frozen=True)
class ProjectTexts:
    """What a benchmark project says of the runtime, and the modules that it carries for it."""

    expected: str  # where the expected logits come from
    requirements: str  # lines for pip
    note: str  # for its README
    carried: tuple[str, ...] = ()
    on_a_phone: str = ""  # the line that measures on an iPhone; "": none can be measured


@dataclass(frozen=True)
class Item:
    """One requirement and what was found."""

    what: str
    found: str
    fits: bool
    remedy: str = ""

    def __str__(self) -> str:
        mark = "found  " if self.fits else "MISSING"
        return f"  {mark} {self.what}: {self.found}" + (
            "" if self.fits or not self.remedy else f"; {self.remedy}"
        )


@dataclass(frozen=True)
class Reply:
    """A function's outputs by their names in the file, and its prediction time, ms."""

    outputs: dict[str, NDArray[Any]]
    ms: float


def oldest_macos(ios: int) -> int:
    """The macOS of the same year: 14 for iOS 17, 15 for iOS 18, 26 for iOS 26."""
    return ios - 3 if ios <= 18 else ios


def macos_item(oldest: int, what: str, macos: str | None, system: str, remedy: str = "") -> Item:
    """The requirement of a macOS, `macos` where this is a Mac; `remedy` is added to updating it."""
    new = macos is not None and int(macos.split(".")[0]) >= oldest
    update = "run this on a Mac" if macos is None else f"update it to {oldest} or newer{remedy}"
    return Item(f"macOS {oldest} or newer, for {what}", macos or f"this is {system}", new, update)
