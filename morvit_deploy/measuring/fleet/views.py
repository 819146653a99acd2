"""The report of a fleet: which bundle is fastest on which device, the joined tables, each device's conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.measuring.fleet.picture import grouped_bars
from morvit_deploy.measuring.fleet.result import MEASURED, FleetResult, Row, comparable, label, ratio_between
from morvit_deploy.measuring.fleet.running import Outcome
from morvit_deploy.measuring.views import conditions_table
from morvit_deploy.report import Picture, Report, Table, three_digits
from morvit_deploy.timing.result import Measured

COLUMNS = ("device", "bundle", "p50 ms", "p90 ms", "speed", "images/s", "state")


def fleet_report(result: FleetResult) -> Report:
    """The conclusion in a sentence, bars by device, and tables."""
    measured = [one for one in result.outcomes if comparable(one)]
    groups = [(one.device.name, [(label(lane), _ms(lane)) for lane in comparable(one)]) for one in measured]
    first = groups[0][1][0][0] if groups else ""
    warnings = [tuple(text.split(": ", 1)) for text in result.warnings]
    tables: list[Table | Picture] = [
        fleet_table(result),
        *([Table("Warnings", ("device", "warning"), warnings)] if warnings else []),
        *([started] if (started := _start_table(measured)) else []),
        *(table for one in measured for table in _of_device(one)),
    ]
    return Report("Fleet", tables, sentence(result), grouped_bars("Median time of an image", groups, first))


def fleet_table(result: FleetResult) -> Table:
    """A row for each bundle on each device."""
    rows = [_cells(row) for row in result.rows]
    batches = dict.fromkeys(str(row.batch) for row in result.rows if row.batch is not None)
    caption = (
        "speed: over the first bundle of the device, per image, median over the blocks; parity ok: the device "
        f"returned the expected logits before it was timed; batch {', '.join(batches) or 'unknown'}"
    )
    return Table("Devices", COLUMNS, rows, numeric=(2, 3, 4, 5), caption=caption)


def sentence(result: FleetResult) -> str:
    """Which bundle is fastest on which device, and which devices dropped out."""
    measured = [one for one in result.outcomes if comparable(one)]
    said = [_several(result, measured) if len(result.bundles) > 1 else _single(measured)] if measured else []
    if not measured:
        said.append("No device was measured.")
    if result.dropped:  # the first clause of a reason: the rest says what to do
        dropped = [f"{one.device.name} ({one.reason.partition(';')[0]})" for one in result.dropped]
        said.append(f"{_and(dropped)} dropped out.")
    return " ".join([*said, *(["Ctrl-C ended it early."] if result.interrupted else [])])


def _single(measured: Sequence[Outcome]) -> str:
    places = [f"{three_digits(_ms(comparable(one)[0]))} ms an image on {one.device.name}" for one in measured]
    return f"{label(comparable(measured[0])[0])} takes {_and(places)} (medians)."


def _several(result: FleetResult, measured: Sequence[Outcome]) -> str:
    """Devices of the same fastest bundle together; those where the scatter hides it last."""
    clear: dict[str, list[str]] = {}
    even: dict[str, list[str]] = {}
    for outcome in measured:
        fastest, *equal = result.fastest(outcome)
        if equal:
            even.setdefault(_and([label(one) for one in (fastest, *equal)]), []).append(outcome.device.name)
        else:
            clear.setdefault(label(fastest), []).append(_lead(outcome, fastest))
    said = [f"{name} is the fastest on {_and(places)}" for name, places in clear.items()]
    said += [f"on {_and(places)} {names} do not differ beyond the scatter" for names, places in even.items()]
    text = "; ".join(said) + "."
    return text if clear else text[:1].upper() + text[1:]


def _lead(outcome: Outcome, fastest: Measured) -> str:
    """desk (1.20 ms an image, 1.93× as fast as dense)."""
    others = [lane for lane in comparable(outcome) if lane is not fastest]
    place = f"{outcome.device.name} ({three_digits(_ms(fastest))} ms an image"
    if not others:
        return f"{place})"
    second = min(others, key=_ms)
    return f"{place}, {ratio_between(fastest, second).median:.2f}× as fast as {label(second)})"


def _start_table(measured: Sequence[Outcome]) -> Table | None:
    """Medians over the new processes of a device, or over the new workers of a page."""
    kinds = ("cold_start_ms", "load_ms", "first_run_ms")
    rows = [
        (one.device.name, label(lane), *(three_digits(lane.start_ms(kind)) for kind in kinds))
        for one in measured
        for lane in comparable(one)
        if isinstance(lane, MeasuredBundle) and lane.starts
    ]
    columns = ("device", "bundle", "cold start ms", "load ms", "first run ms")
    caption = (
        "medians; a cold start includes interpreter and imports, in a browser the compilation of WebAssembly"
    )
    return Table("Start", columns, rows, numeric=(2, 3, 4), caption=caption) if rows else None


def _of_device(outcome: Outcome) -> list[Table]:
    """Start and conditions of a device; on a GPU, all its parts."""
    result, name = outcome.result, outcome.device.name
    if not isinstance(result, BenchResult):
        parts = result.report().parts if result else []
        return [_titled(name, table) for table in parts if isinstance(table, Table)]
    known = "machine" in result.conditions and "threads" in result.conditions
    conditions = [conditions_table(result.device, result.conditions, result.measured)] if known else []
    return [_titled(name, table) for table in conditions]


def _titled(device: str, table: Table) -> Table:
    return replace(table, title=f"{device}: {table.title[:1].lower()}{table.title[1:]}")


def _cells(row: Row) -> tuple[str, ...]:
    figures = ("" if one is None else three_digits(one) for one in (row.p50_ms, row.p90_ms))
    speed = "" if row.ratio is None else f"{row.ratio:.2f}×"
    rate = "" if row.images_per_s is None else three_digits(row.images_per_s)
    return row.device, row.bundle, *figures, speed, rate, _state(row)


def _state(row: Row) -> str:
    """A reason stands alone, or after the blocks that were complete before the device was lost."""
    parity = {True: "parity ok", False: "measured", None: ""}[row.parity]
    return parity if row.state == MEASURED else f"{parity}, then: {row.state}" if parity else row.state


def _ms(lane: Measured) -> float:
    """Median time of an image, ms."""
    return lane.latency_ms["p50"] / lane.batch


def _and(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
