"""Parses a line of tegrastats, and selects the power rails that add up to the input."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from .heat import OFF_C


class Reading(NamedTuple):
    """Values of a line: power in mW by rail, and a GPU clock for each cluster."""

    rails_mw: dict[str, int]
    temperatures_c: dict[str, float]
    gpu_mhz: list[int]
    emc_mhz: int | None


class Total(NamedTuple):
    """The rails whose sum is the input power, and how that is known."""

    rails: tuple[str, ...]
    why: str


# The first entry whose rails are all present is used.
TOTALS = (
    # forums.developer.nvidia.com/t/200883: "VDD_IN is the total power of module"
    Total(("VDD_IN",), "VDD_IN is the module's input (Orin Nano, Orin NX, Xavier NX, TX2)"),
    Total(("POM_5V_IN",), "POM_5V_IN is the module's input (Nano, TX1)"),
    # forums.developer.nvidia.com/t/366461: the INA238 at VIN measures "Jetson + carrier"
    Total(("VIN",), "VIN is the input of the module and its carrier board (Thor with an INA238)"),
    # Jetson Linux Developer Guide: three inputs; VDDQ_VDD2_1V8AO is fed from VIN_SYS_5V0 and not added again
    Total(
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        "the module's three inputs, added (AGX Orin); the carrier board is not in them",
    ),
    Total(
        ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
        "the module's three inputs, added (Thor without an INA238); the carrier board is not in them",
    ),
    # forums.developer.nvidia.com/t/81016
    Total(
        ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        "the module's six rails, added (AGX Xavier); the carrier board is not in them",
    ),
)

_LINE = re.compile(r"(?<!\S)RAM \d+/\d+MB")
# `VDD_IN 4556mW/4556mW` now/average; JetPack 7.2 adds /highest, before JetPack 5 there was no unit
_RAIL = re.compile(r"(?<!\S)([A-Z]\w*) (-?\d+)(?:mW(?:/-?\d+(?:mW)?)*|/-?\d+)(?=\s|$)")
_TEMPERATURE = re.compile(r"(?<!\S)([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C")
_GPU = re.compile(r"(?<!\S)GR3D_FREQ (?:\d+%)?@\[?(\d+(?:,\d+)*)")
_EMC = re.compile(r"(?<!\S)EMC_FREQ (?:\d+%)?@(\d+)")
_NOT_CONNECTED = "NC"


def parse_line(line: str) -> Reading | None:
    """Current values of a line, not running averages; None for anything but a whole line of tegrastats."""
    if not _LINE.search(line):
        return None
    gpu, emc = _GPU.search(line), _EMC.search(line)
    temperatures = {name.lower(): float(value) for name, value in _TEMPERATURE.findall(line)}
    return Reading(
        rails_mw={name: int(value) for name, value in _RAIL.findall(line) if name != _NOT_CONNECTED},
        temperatures_c={
            name: value for name, value in temperatures.items() if value > OFF_C and name != "pmic"
        },
        gpu_mhz=[int(clock) for clock in gpu.group(1).split(",")] if gpu else [],
        emc_mhz=int(emc.group(1)) if emc else None,
    )


def total_of(rails: Iterable[str]) -> Total | None:
    """Which rails are the input power; None when none of the known sets is complete."""
    present = set(rails)
    return next((total for total in TOTALS if present.issuperset(total.rails)), None)


def total_mw(reading: Reading, total: Total) -> int | None:
    """Input power of a reading; None when one of the rails is missing, as in a line that was cut."""
    if any(rail not in reading.rails_mw for rail in total.rails):
        return None
    return sum(reading.rails_mw[rail] for rail in total.rails)
