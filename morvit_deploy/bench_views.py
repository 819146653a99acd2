"""How a measurement reads: latency, ratios, start and memory, and the conditions. No torch."""

from __future__ import annotations

from pathlib import Path

from morvit_deploy.bench_results import BenchResult, Measured
from morvit_deploy.report import Report, Table, count, size


def bench_report(result: BenchResult) -> Report:
    """All tables of one measurement."""
    tables = [latency_table(result), start_table(result), conditions_table(result)]
    if result.ratios:
        tables.insert(1, ratio_table(result))
    return Report("Measurement", list(tables))


def latency_table(result: BenchResult) -> Table:
    """Warm runs: percentiles, the spread of the blocks' medians, throughput and work."""
    rows = []
    for name, one in zip(short_names(result), result.measured, strict=True):
        latency = one.latency_ms
        rows.append(
            (
                name,
                *(f"{latency[rank]:.3g}" for rank in ("p50", "p90", "p99")),
                f"{min(one.block_medians_ms):.3g}–{max(one.block_medians_ms):.3g}",
                f"{one.images_per_s:.4g}",
                _macs(one),
                "" if one.gmacs_per_s is None else f"{one.gmacs_per_s:.3g}",
            )
        )
    columns = ("bundle", "p50 ms", "p90 ms", "p99 ms", "block medians", "images/s", "MACs", "GMAC/s")
    numbers = result.conditions
    caption = f"{numbers['blocks']} blocks of {numbers['runs_per_block']} runs each, batch {_batches(result)}"
    return Table("Warm latency", columns, rows, numeric=tuple(range(1, 8)), caption=caption)


def ratio_table(result: BenchResult) -> Table:
    """How many times as fast the first bundle is as each of the others."""
    names = short_names(result)
    rows = [
        (names[i], f"{ratio.median:.2f}×", f"{min(ratio.per_block):.2f}–{max(ratio.per_block):.2f}×")
        for i, ratio in enumerate(result.ratios, start=1)
    ]
    return Table(
        f"{names[0]} is faster",
        ("than", "median", "over the blocks"),
        rows,
        numeric=(1, 2),
        caption="ratio of medians per image, block by block",
    )


def start_table(result: BenchResult) -> Table:
    """Cold start, load and first run, files and memory."""
    rows = [
        (
            name,
            f"{one.start_ms('cold_start_ms'):.0f}",
            f"{one.start_ms('load_ms'):.0f}",
            f"{one.start_ms('first_run_ms'):.3g}",
            size(one.file_bytes),
            _mib(one, "peak"),
            _mib(one, "anonymous"),
        )
        for name, one in zip(short_names(result), result.measured, strict=True)
    ]
    columns = ("bundle", "cold start ms", "load ms", "first run ms", "files", "peak MiB", "anonymous MiB")
    caption = (
        f"medians of {result.conditions['starts']} new processes; cold start includes interpreter and imports, "
        "anonymous memory is what the process holds after the warm runs without mapped files"
    )
    return Table("Start and memory", columns, rows, numeric=tuple(range(1, 7)), caption=caption)


def conditions_table(result: BenchResult) -> Table:
    """What must be the same for the figures to come again."""
    known, machine = result.conditions, result.conditions["machine"]
    load, clock = known["load_average_before"], known["cpu_mhz"]
    rows = [
        (
            "device",
            f"{result.device}: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        ),
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("instruction sets", ", ".join(machine["instruction_sets"]) or "unknown"),
        ("threads", str(known["threads"])),
        ("libraries", ", ".join(f"{name} {version}" for name, version in known["versions"].items())),
        ("inputs", known["inputs"]),
        ("clock", f"{clock['current']:.0f} MHz" if clock else "not readable"),
        ("governor", known["cpu_governor"] or "not readable"),
        (
            "busy before",
            f"load average {load[0]:.2f}, " * bool(load) + f"{known['cpu_used_before_percent']:.0f} % in use",
        ),
        ("date", known["date"]),
    ]
    return Table("Conditions", ("what", "value"), rows)


def short_names(result: BenchResult) -> list[str]:
    """Folder names, or the paths as given where two folders have one name."""
    names = [Path(one.bundle).name for one in result.measured]
    return names if len(set(names)) == len(names) else [one.bundle for one in result.measured]


def _macs(one: Measured) -> str:
    least, most = min(one.macs.values()), max(one.macs.values())
    return count(least) if least == most else f"{count(least)} – {count(most)}"


def _mib(one: Measured, kind: str) -> str:
    return f"{one.memory_mib[kind]:.0f}" if kind in one.memory_mib else "unknown"


def _batches(result: BenchResult) -> str:
    return ", ".join(str(batch) for batch in dict.fromkeys(one.batch for one in result.measured))
