"""Tables of an adaptive bundle's measurement. No torch."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

from morvit_deploy.bars import bars
from morvit_deploy.measuring.mix.latency import Over, samples_of
from morvit_deploy.measuring.mix.mix import IN_A_ROW, Mix
from morvit_deploy.report import Picture, Table, count, share, spread, three_digits
from morvit_deploy.timing.arithmetic import OVERFLOWED
from morvit_deploy.timing.samples import percentiles

NOT_KNOWN = "not known"


def mix_tables(name: str, mix: Mix) -> list[Table]:
    """Latency by bucket, latency over the mix, and dispatch overhead."""
    if mix.batch > 1:
        return [_throughput_table(name, mix)]
    return [_kind_table(name, mix), _over_table(mix), _cost_table(mix)]


def mix_picture(name: str, mix: Mix) -> Picture | None:
    """A bar for each kind of picture, with its share of those fed and of the calibration images."""
    rows = [("the mix of the pictures fed", mix.fed.expected_ms or 0.0)] if mix.fed.expected_ms else []
    rows += [(_kind_label(mix, kind), latency.median_ms) for kind, latency in mix.latency_of.items()]
    drawn = bars(
        f"Median time of an image in each bucket of {name}",
        [(label, ms, f"{three_digits(ms)} ms") for label, ms in rows],
        "shares of the pictures fed, and of the images that the plan was calibrated on",
    )
    return drawn and replace(drawn, page_only=True)


def _kind_label(mix: Mix, kind: str) -> str:
    found = [(mix.fed, "fed"), (mix.calibrated, "calibrated")]
    shares = [f"{share(over.shares.get(kind, 0.0))} {what}" for over, what in found if over]
    return f"{kind}: {', '.join(shares)}"


def _kind_table(name: str, mix: Mix) -> Table:
    rows = [_kind_row(mix, kind) for kind in mix.latency_of]
    columns = ("kind", "MACs", "alone ms", "p50 ms", "p90 ms", "p99 ms", "from")
    caption = (
        "alone: p50 of the bucket's graph without dispatch; the others: the bundle when this bucket runs last, "
        "from its stream, from runs of such pictures in a row, or, without such pictures, from parts measured alone"
    )
    title = f"Buckets of {name}, one image a run"
    return Table(title, columns, rows, numeric=(1, 2, 3, 4, 5), caption=caption)


def _kind_row(mix: Mix, kind: str) -> tuple[str, ...]:
    latency = mix.latency_of[kind]
    bucket = ("", "") if kind == OVERFLOWED else (count(mix.plan.bucket(kind).macs), _p50(mix, kind))
    return kind, *bucket, *map(three_digits, percentiles(latency.samples_ms).values()), latency.source


def _over_table(mix: Mix) -> Table:
    found = [("calibration images", mix.calibrated), (f"{len(mix.kinds)} pictures fed", mix.fed)]
    notes = [over.note for _, over in found if over and over.note]
    if mix.calibrated is None:
        notes.append("the plan does not record the mix of its calibration images")
    caption = "; ".join(["expected: shares times medians; p99: of the samples, weighted by share", *notes])
    columns = ("mix of", "buckets", "overflow", "expected ms", "p99 ms")
    rows = [_over_row(name, over) for name, over in found if over]
    return Table("Over a mix", columns, rows, numeric=(2, 3, 4), caption=caption)


def _over_row(name: str, over: Over) -> tuple[str, ...]:
    buckets = ", ".join(f"{kind} {share(part)}" for kind, part in over.shares.items() if part)
    overflow = NOT_KNOWN if over.overflow is None else share(over.overflow)
    figures = (NOT_KNOWN if ms is None else three_digits(ms) for ms in (over.expected_ms, over.p99_ms))
    return name, buckets, overflow, *figures


def _cost_table(mix: Mix) -> Table:
    columns = ("what", "ms", "over the blocks", "percent", "measured as")
    dispatch = [
        _cost_row(f"dispatch to {bucket}", cost.as_dict(), "the bundle minus the bucket alone, same pictures")
        for bucket in mix.alone
        if (cost := mix.dispatch(bucket))
    ]
    rows = [*dispatch, _misprediction_row(mix), _switch_row(mix)]
    return Table("Dispatch overhead per image", columns, rows, numeric=(1, 2, 3))


def _misprediction_row(mix: Mix) -> tuple[str, ...]:
    wrong = mix.misprediction
    if wrong is None:
        return "a misprediction", "", "", "", "none: the bucket is chosen exactly"
    if wrong["from"] == IN_A_ROW:
        return _cost_row("a misprediction", wrong, "overflowing pictures: the bundle minus `full` alone")
    how = "upper bound: the predicted bucket alone, stem included; no picture overflowed"
    return _cost_row("a misprediction", wrong, how)


def _switch_row(mix: Mix) -> tuple[str, ...]:
    switch = mix.switch or {}
    how = switch.get("note", "the bucket changes at each image, compared with grouped by bucket")
    return _cost_row("a change of the bucket", switch, how)


def _cost_row(what: str, cost: dict[str, Any], how: str) -> tuple[str, ...]:
    blocks = spread(cost["per_block_ms"]) if "per_block_ms" in cost else ""
    percent = f"{cost['percent']:.1f} %" if "percent" in cost else ""
    return what, three_digits(cost["ms"]), blocks, percent, how


def _throughput_table(name: str, mix: Mix) -> Table:
    rows = []
    for bucket in mix.plan.buckets:
        samples = samples_of(mix.alone[bucket.name])
        images_per_s = three_digits(1e3 * mix.batch * len(samples) / sum(samples))
        fed = share(mix.fed.shares.get(bucket.name, 0.0))
        rows.append((bucket.name, count(bucket.macs), fed, _p50(mix, bucket.name), images_per_s))
    again = share(mix.fed.shares.get(OVERFLOWED, 0.0))
    caption = f"{again} of the pictures overflowed; latency over a mix is measured at one image a run"
    columns = ("bucket", "MACs", "pictures fed", "alone ms", "alone images/s")
    title = f"Buckets of {name}, batches of {mix.batch}"
    return Table(title, columns, rows, numeric=(1, 2, 3, 4), caption=caption)


def _p50(mix: Mix, bucket: str) -> str:
    return three_digits(median(samples_of(mix.alone[bucket])))
