"""Tables of a measurement on Apple's devices. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from morvit_deploy.measuring.apple.dispatching import NEURAL_ENGINE
from morvit_deploy.measuring.apple.outcome import AppleMeasured
from morvit_deploy.measuring.apple.placement import CPU, GPU, NE, NOT_TOLD
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.mix.latency import Over, samples_of
from morvit_deploy.report import Report, Table, count, share, spread, three_digits

MOST_LEAVERS = 8  # operators shown of a function; the JSON has all


def apple_report(result: BenchResult) -> Report:
    """All tables of one measurement."""
    measured = [one for one in result.measured if isinstance(one, AppleMeasured)]
    tables = [latency_table(measured), function_table(measured)]
    if any(one.mix for one in measured):
        tables.append(mix_table(measured))
    if any(one.placements for one in measured):
        tables += [placement_table(measured), leavers_table(measured)]
    if failed := result.conditions.get("failed_units"):
        tables.append(failed_table(failed))
    best = min(measured, key=lambda one: one.latency_ms["p50"])
    outcome = f"Fastest on {best.units}: {three_digits(best.latency_ms['p50'])} ms an image (median)."
    return Report("Measurement", [*tables, parity_table(measured), conditions_table(result)], outcome)


def failed_table(failed: Mapping[str, Mapping[str, object]]) -> Table:
    """Compute units that could not be measured, with their errors."""
    rows = [(units, str(one["why"])) for units, one in failed.items()]
    return Table("Failed compute units", ("units", "error"), rows)


def latency_table(measured: Sequence[AppleMeasured]) -> Table:
    """Warm runs by compute units, the first against each."""
    first = measured[0].latency_ms["p50"]
    rows = [
        (
            one.units,
            *(three_digits(one.latency_ms[rank]) for rank in ("p50", "p90", "p99")),
            spread(one.block_medians_ms),
            f"{first / one.latency_ms['p50']:.2f}×",
            three_digits(one.start_ms("cold_start_ms")),
            three_digits(one.start_ms("load_ms")),
        )
        for one in measured
    ]
    latency = ("p50 ms", "p90 ms", "p99 ms", "blocks' medians", f"against {measured[0].units}")
    columns = ("units", *latency, "first start ms", "load again ms")
    caption = "one image through all of its functions; a first start loads all functions and runs one image"
    return Table("Warm latency by compute units", columns, rows, numeric=tuple(range(1, 8)), caption=caption)


def function_table(measured: Sequence[AppleMeasured]) -> Table:
    """Latency and load time of each function."""
    rows = [
        (
            one.units,
            name,
            *(three_digits(times.as_dict()["latency_ms"][rank]) for rank in ("p50", "p90", "p99")),
            three_digits(times.load_ms),
            three_digits(times.reload_ms),
        )
        for one in measured
        for name, times in one.functions.items()
    ]
    columns = ("units", "function", "p50 ms", "p90 ms", "p99 ms", "first load ms", "again ms")
    return Table("Functions, each in a row", columns, rows, numeric=(2, 3, 4, 5, 6))


def mix_table(measured: Sequence[AppleMeasured]) -> Table:
    """Expected latency over the plan's mix and the measured mix, and each bucket's latency."""
    rows = []
    for one in measured:
        if one.mix is None:
            continue
        overs: list[tuple[str, Over | None]] = [
            ("calibration images", one.mix.calibrated),
            ("as run", one.mix.fed),
        ]
        for what, over in overs:
            if over is not None:
                figures = (
                    "not known" if ms is None else three_digits(ms) for ms in (over.expected_ms, over.p99_ms)
                )
                kinds = ", ".join(f"{kind} {share(part)}" for kind, part in over.shares.items() if part)
                rows.append((one.units, what, kinds, *figures))
        for bucket, blocks in one.mix.alone.items():
            samples = samples_of(blocks)
            macs = count(one.macs[bucket])
            rows.append(
                (one.units, bucket, f"stem and trunk, {macs} MACs", three_digits(median(samples)), "")
            )
    caption = "expected: shares times medians; a bucket: its median, stem included"
    return Table(
        "Over the mix", ("units", "mix", "buckets", "ms", "p99 ms"), rows, numeric=(3, 4), caption=caption
    )


def placement_table(measured: Sequence[AppleMeasured]) -> Table:
    """Operations and estimated cost by device."""
    rows = [
        (
            one.units,
            p.function,
            *(f"{p.ops[d]} · {share(p.cost[d])}" for d in (NE, GPU, CPU)),
            str(p.ops[NOT_TOLD]),
        )
        for one in measured
        for p in one.placements
    ]
    columns = ("units", "function", NE, GPU, CPU, NOT_TOLD)
    caption = "operations · share of the estimated cost, where Core ML's compute plan prefers to run them"
    return Table("Placement", columns, rows, numeric=(2, 3, 4, 5), caption=caption)


def leavers_table(measured: Sequence[AppleMeasured]) -> Table:
    """Operations that run elsewhere although the units include the Neural Engine."""
    rows = [
        (
            one.units,
            p.function,
            left.operator,
            str(left.ops),
            share(left.cost),
            " and ".join(left.to),
            "may run there" if left.could else "cannot run there",
        )
        for one in measured
        if one.units in NEURAL_ENGINE
        for p in one.placements
        for left in p.left[:MOST_LEAVERS]
    ]
    columns = ("units", "function", "operator", "ops", "cost", "runs on", "Neural Engine")
    return Table("What leaves the Neural Engine", columns, rows, numeric=(3, 4))


def parity_table(measured: Sequence[AppleMeasured]) -> Table:
    """The device's logits compared with those expected."""
    rows = [
        (
            one.units,
            bucket,
            f"{median(found.error):.2e}",
            f"{max(found.error):.2e}",
            share(found.top1),
            f"{found.tolerance:g}",
        )
        for one in measured
        for bucket, found in one.parity.items()
    ]
    columns = ("units", "bucket", "median error", "largest", "same class", "tolerance")
    caption = (
        "largest |Δlogit| of a picture over max(1, max |logit|); the median must be within the tolerance"
    )
    return Table("Parity on the device", columns, rows, numeric=(2, 3, 4, 5), caption=caption)


def conditions_table(result: BenchResult) -> Table:
    """The conditions for reproducing the figures."""
    known = result.conditions
    machine, power = known["machine"], known["power"]
    rows = [("device", result.device), ("machine", f"{machine['processor']}, {machine['system']}")]
    if "phone" in known:
        rows.append(("phone", f"{known['phone']['name']}, iOS {known['phone']['system']}"))
    rows += [
        (
            "power",
            "not readable" if power is None else f"{power['source']}, low power {power['low_power_mode']}",
        ),
        ("libraries", ", ".join(f"{name} {version}" for name, version in known["versions"].items())),
        ("inputs", known["inputs"]),
        ("mix as run", known["mix"]),
        ("amount", f"{known['blocks']} blocks of {known['runs_per_block']} runs"),
        ("date", known["date"]),
    ]
    return Table("Conditions", ("what", "value"), rows)
