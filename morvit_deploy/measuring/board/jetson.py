"""A Jetson's conditions in a result: energy by bundle, warnings, and tables. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from morvit_deploy.agent import jetson
from morvit_deploy.errors import TargetError
from morvit_deploy.measuring.core.results import MeasuredBundle
from morvit_deploy.report import Table, three_digits

_LOST = "the connection was lost during the measurement, and with it the power readings"


def check_jetson(host: str, before: Mapping[str, Any]) -> None:
    """TargetError when the device is no Jetson although its readers are asked for."""
    found = before.get("jetson")
    if found is not None and found["jetson"] is None:
        raise TargetError(f"{host} is no Jetson: {found['reason']}; measure it with --device ssh")


def with_energy(measured: Iterable[MeasuredBundle], after: Mapping[str, Any]) -> tuple[MeasuredBundle, ...]:
    """Each bundle with its energy; unchanged where power is not read. Places are the bundles' numbers."""
    if "jetson" not in after:
        return tuple(measured)
    energy = after["jetson"].get("energy", {})
    lost = {"per_image_mj": None, "reason": _LOST, "source": None}
    return tuple(replace(one, energy=energy.get(str(i), lost)) for i, one in enumerate(measured))


def jetson_warnings(known: Mapping[str, Any], measured: Iterable[MeasuredBundle]) -> list[str]:
    """What makes a Jetson's figures doubtful, with commands to fix it; empty for another device."""
    read = known.get("device_conditions", {})
    before, after = (read.get(when, {}).get("jetson") for when in ("before", "after"))
    if before is None:
        return []
    energies = [one.energy for one in measured if one.energy is not None]
    found = jetson.warnings(before, after)
    for energy in energies:
        reason = [] if energy["reason"] is None else [f"no energy per image: {energy['reason']}"]
        found += [sentence for sentence in reason + energy.get("remarks", []) if sentence not in found]
    return found + jetson.hints(before, energies[0] if energies else None)


def jetson_rows(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows for the table of conditions; empty for another device."""
    read = known.get("device_conditions", {})
    before, after = (read.get(when, {}).get("jetson") for when in ("before", "after"))
    if before is None:
        return []
    board, mode = before["jetson"], before["power_mode"]
    named = mode["number"] if mode["name"] is None else mode["name"]
    locked = {True: "locked", False: "not locked", None: "locked or not: not readable"}[
        before["clocks"]["locked"]
    ]
    degrees = [state["heat"]["hottest_c"] for state in (before, after) if state is not None]
    shown = [f"{one:.1f} °C" for one in degrees if one is not None]
    return [
        ("Jetson", board["module"] or board["model"] or "unknown"),
        ("JetPack", f"{board['jetpack'] or 'unknown'}, L4T {board['l4t'] or 'unknown'}"),
        ("power mode", "not readable" if named is None else str(named)),
        ("clocks", f"{locked} ({_units(before['clocks']['units'])})"),
        ("hottest sensor", " → ".join(shown) or "not readable"),
        ("throttling", _throttling(before, after)),
    ]


def energy_table(names: Iterable[str], measured: Iterable[MeasuredBundle]) -> Table | None:
    """mJ per image and how they were measured; None where power is not read."""
    pairs = [(name, one.energy) for name, one in zip(names, measured, strict=True) if one.energy is not None]
    if not pairs:
        return None
    rows = [
        (name, "not measured", "", "", "", energy["reason"])
        if energy["per_image_mj"] is None
        else (
            name,
            three_digits(energy["per_image_mj"]),
            three_digits(energy["per_image_with_idle_mj"]),
            three_digits(energy["mean_mw"] / 1e3),
            three_digits(energy["idle_mw"] / 1e3),
            f"{energy['source']}: {' + '.join(energy['rails'])}",
        )
        for name, energy in pairs
    ]
    columns = ("bundle", "mJ/image", "with idle", "W", "idle W", "read from")
    caption = "warm runs, warm-up included; the idle power is subtracted"
    return Table("Energy", columns, rows, numeric=(1, 2, 3, 4), caption=caption)


def _units(units: list[dict[str, Any]]) -> str:
    """The highest clock of each kind."""
    top: dict[str, float] = {}
    for unit in units:
        top[unit["kind"]] = max(top.get(unit["kind"], 0.0), unit["max_mhz"])
    return ", ".join(f"{kind.upper()} up to {mhz:.0f} MHz" for kind, mhz in top.items()) or "not readable"


def _throttling(before: dict[str, Any], after: dict[str, Any] | None) -> str:
    if after is None:
        return ", ".join(before["heat"]["throttling"]) or "none before"
    return "; ".join(jetson.throttled(before["heat"], after["heat"])) or "none"
