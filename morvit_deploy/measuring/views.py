"""Tables of a measurement: latency, ratios, start, cost and conditions. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morvit_deploy.bars import bars
from morvit_deploy.measuring.board.jetson import energy_table, jetson_rows
from morvit_deploy.measuring.browser.views import browser_rows
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.measuring.mix.views import mix_picture, mix_tables
from morvit_deploy.measuring.profiling.views import profile_picture, profile_result, profile_tables
from morvit_deploy.report import Picture, Report, Table, count, numbered, size, spread, three_digits
from morvit_deploy.timing.result import Measured

_MEMORY = {"peak": "peak", "anonymous": "anonymous", "webassembly": "WebAssembly"}  # kind to its column


def bench_report(result: BenchResult) -> Report:
    """All tables of one measurement."""
    ratios = [ratio_table(result)] if result.ratios else []
    named = list(zip(short_names(result), result.measured, strict=True))
    profiles = [(name, one.profile) for name, one in named if one.profile]
    drawn = (mix_picture(name, one.mix) for name, one in named if one.mix)
    tables: list[Table | Picture] = [
        *(picture for picture in drawn if picture),
        latency_table(result),
        *ratios,
        *(table for name, one in named if one.mix for table in mix_tables(name, one.mix)),
        *(table for name, profile in profiles for table in profile_tables(name, profile)),
        start_table(result),
        cost_table(result),
        *([energy] if (energy := energy_table(short_names(result), result.measured)) else []),
        conditions_table(result.device, result.conditions, result.measured),
    ]
    times = [one.latency_ms["p50"] / one.batch for one in result.measured]
    rows = [(name, ms, f"{three_digits(ms)} ms") for name, ms in zip(short_names(result), times, strict=True)]
    sentences = [_result(result), *(profile_result(name, profile) for name, profile in profiles)]
    picture = profile_picture(profiles) if profiles else bars("Median time of an image", rows)
    return Report("Measurement", tables, " ".join(sentences), picture)


def _result(result: BenchResult) -> str:
    """The first bundle's latency, and how it compares with the others."""
    first, *others = short_names(result)
    one = result.measured[0]
    time = f"{three_digits(one.latency_ms['p50'])} ms a run of {numbered(one.batch, 'image')}"
    pairs = zip(others, result.ratios, strict=True)
    against = "".join(f"; {ratio.median:.2f}× as fast as {name}" for name, ratio in pairs)
    return f"{first} takes {time} (median), {three_digits(one.images_per_s)} images/s{against}."


def latency_table(result: BenchResult) -> Table:
    """Warm runs: percentiles, the spread of the blocks' medians, throughput."""
    rows = [
        (
            name,
            *(three_digits(one.latency_ms[rank]) for rank in ("p50", "p90", "p99")),
            spread(one.block_medians_ms),
            three_digits(one.images_per_s),
        )
        for name, one in zip(short_names(result), result.measured, strict=True)
    ]
    columns = ("bundle", "p50 ms", "p90 ms", "p99 ms", "blocks' medians", "images/s")
    batches = ", ".join(str(batch) for batch in dict.fromkeys(one.batch for one in result.measured))
    runs = " or ".join(str(runs) for runs in dict.fromkeys(len(one.blocks[0].ms) for one in result.measured))
    caption = f"{result.conditions['blocks']} blocks of {runs} runs each, batch {batches}"
    return Table("Warm latency", columns, rows, numeric=(1, 2, 3, 4, 5), caption=caption)


def ratio_table(result: BenchResult) -> Table:
    """Speed-up of the first bundle over each of the others."""
    names = short_names(result)
    rows = [
        (name, f"{ratio.median:.2f}×", spread(ratio.per_block))
        for name, ratio in zip(names[1:], result.ratios, strict=True)
    ]
    columns = ("against", "times as fast", "over the blocks")
    kinds = " or ".join(dict.fromkeys(ratio.statistic for ratio in result.ratios))
    caption = f"per image, {kinds} of a block to {kinds} of a block"
    return Table(f"Speed of {names[0]}", columns, rows, numeric=(1, 2), caption=caption)


def start_table(result: BenchResult) -> Table:
    """Start of a new process: cold start, loading and first run."""
    kinds = ("cold_start_ms", "load_ms", "first_run_ms")
    rows = [
        (name, *(three_digits(one.start_ms(kind)) for kind in kinds))
        for name, one in zip(short_names(result), result.measured, strict=True)
    ]
    columns = ("bundle", "cold start ms", "load ms", "first run ms")
    in_page = "browser" in result.conditions
    caption = f"medians of {result.conditions['starts']}; a cold start includes " + (
        "the runtime's modules and the compilation of its WebAssembly"
        if in_page
        else "interpreter and imports"
    )
    title = f"Start of a new {'worker of the page' if in_page else 'process'}"
    return Table(
        title,
        columns,
        rows,
        numeric=(1, 2, 3),
        caption=caption,
    )


def cost_table(result: BenchResult) -> Table:
    """MACs of an image, MACs per second, file size, and memory after the warm runs."""
    kinds = ("webassembly",) if "browser" in result.conditions else ("peak", "anonymous")
    rows = [
        (
            name,
            _macs(one),
            "" if one.gmacs_per_s is None else three_digits(one.gmacs_per_s),
            size(one.file_bytes),
            *(f"{one.memory_mib[kind]:.0f}" if kind in one.memory_mib else "" for kind in kinds),
        )
        for name, one in zip(short_names(result), result.measured, strict=True)
    ]
    columns = ("bundle", "MACs", "GMAC/s", "files", *(f"{_MEMORY[kind]} MiB" for kind in kinds))
    caption = (
        "WebAssembly: the runtime's memory, without the page's copy of the files"
        if "browser" in result.conditions
        else "anonymous: in use after the warm runs, without mapped files"
    )
    return Table("Work and memory", columns, rows, numeric=tuple(range(1, len(columns))), caption=caption)


def conditions_table(device: str, known: dict[str, Any], measured: Sequence[Measured]) -> Table:
    """The conditions for reproducing the figures."""
    machine = known["machine"]
    load, clock = known["load_average_before"], known["cpu_mhz"]
    used = known["cpu_used_before_percent"]
    others = [b.others_percent for m in measured for b in m.blocks if b.others_percent is not None]
    rows = [
        (
            "device",
            f"{device}: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib'] or 'unknown'} GiB",
        ),
        ("system", machine["system"] + (f", Python {machine['python']}" if machine["python"] else "")),
        ("instruction sets", ", ".join(machine["instruction_sets"]) or "unknown"),
        ("threads", str(known["threads"])),
        ("libraries", ", ".join(f"{name} {version}" for name, version in known["versions"].items())),
        ("inputs", known["inputs"]),
        ("clock", f"{clock['current']:.0f} MHz" if clock else "not readable"),
        ("governor", known["cpu_governor"] or "not readable"),
        (
            "busy before",
            (f"load average {load[0]:.2f}, " if load else "")
            + ("not readable" if used is None else f"{used:.0f} % in use"),
        ),
        ("others meanwhile", f"{spread(others)} % in use" if others else "not readable"),
        ("date", known["date"]),
    ]
    rows[1:1] = [*_there(known), *jetson_rows(known), *browser_rows(known)]
    return Table("Conditions", ("what", "value"), rows)


def _there(known: dict[str, Any]) -> list[tuple[str, str]]:
    """For a remote device: its host, and its hottest sensor before and after."""
    if "host" not in known:
        return []
    read = [known["device_conditions"].get(when, {}) for when in ("before", "after")]
    hottest = [max((one.get("linux", {}).get("temperatures_c") or {"": None}).values()) for one in read]
    degrees = [f"{one:.1f} °C" for one in hottest if one is not None]
    return [("host", known["host"]), ("temperature", " → ".join(degrees) or "not readable")]


def short_names(result: BenchResult) -> list[str]:
    """Folder names, or the given paths where two folders have the same name."""
    names = [Path(one.name).name for one in result.measured]
    return names if len(set(names)) == len(names) else [one.name for one in result.measured]


def _macs(one: MeasuredBundle) -> str:
    least, most = min(one.macs.values()), max(one.macs.values())
    return count(least) if least == most else f"{count(least)}–{count(most)}"
