"""How the measurement of a bundle that chooses buckets reads. No torch."""

from __future__ import annotations

from morvit_deploy.measuring.arithmetic import OVERFLOWED, Difference
from morvit_deploy.measuring.mix import IN_A_ROW, Mix, Over
from morvit_deploy.measuring.results import percentiles
from morvit_deploy.report import Table, count, share

NOT_KNOWN = "not known"


def mix_tables(name: str, mix: Mix) -> list[Table]:
    """Latency by bucket, over a mix, and what choosing costs."""
    if mix.batch > 1:
        return [_throughput_table(name, mix)]
    return [_answering_table(name, mix), _over_table(mix), _cost_table(mix)]


def _answering_table(name: str, mix: Mix) -> Table:
    rows = []
    for kind, answer in mix.answering.items():
        bucket = None if kind == OVERFLOWED else mix.plan.bucket(kind)
        seen = mix.dispatch(kind)
        alone = (
            "" if bucket is None else digits(percentiles([ms for b in mix.alone[kind] for ms in b.ms])["p50"])
        )
        rows.append(
            (
                kind,
                "" if bucket is None else count(bucket.macs),
                alone,
                digits(answer.median_ms),
                digits(percentiles(answer.samples_ms)["p99"]),
                answer.source,
                "" if seen is None else f"{digits(seen.median_ms)} ({between(seen)})",
                "" if seen is None else f"{seen.median_percent:.0f} %",
            )
        )
    columns = ("answer", "MACs", "alone ms", "p50 ms", "p99 ms", "from", "dispatch ms", "of alone")
    caption = (
        "alone: that bucket's graph without a choice; p50, p99: the bundle when it answers so, from its stream, its "
        "runs of such pictures in a row, or, where no picture was answered so, the bucket alone plus dispatch; "
        "dispatch: bundle minus bucket alone on the same pictures, median and range over the blocks"
    )
    return Table(
        f"Buckets of {name}, one image a run", columns, rows, numeric=(1, 2, 3, 4, 6, 7), caption=caption
    )


def _over_table(mix: Mix) -> Table:
    found = [("the calibration images", mix.calibrated), (f"the {len(mix.kinds)} pictures fed", mix.fed)]
    rows = [_over_row(name, over) for name, over in found if over]
    told = "" if mix.calibrated else "the plan does not say the mix of its calibration images"
    notes = [over.note for _, over in found if over and over.note]
    caption = "; ".join(
        [
            "expected: shares times medians; p99: of the samples, weighted by share",
            *filter(None, [told, *notes]),
        ]
    )
    columns = ("mix of", "answered by", "overflow", "expected ms", "p99 ms")
    return Table("Over a mix", columns, rows, numeric=(2, 3, 4), caption=caption)


def _over_row(name: str, over: Over) -> tuple[str, ...]:
    answered = ", ".join(f"{kind} {share(part)}" for kind, part in over.shares.items() if part)
    overflow = NOT_KNOWN if over.overflow is None else share(over.overflow)
    return (
        name,
        answered,
        overflow,
        *(NOT_KNOWN if ms is None else digits(ms) for ms in (over.expected_ms, over.p99_ms)),
    )


def _cost_table(mix: Mix) -> Table:
    rows = []
    wrong, switch = mix.misprediction, mix.switch
    if wrong is None:
        rows.append(("a misprediction", "none", "", "the bucket is chosen exactly"))
    else:
        spread = (
            f"{digits(wrong['min_ms'])} to {digits(wrong['max_ms'])}" if wrong["from"] == IN_A_ROW else ""
        )
        how = (
            "bundle on overflowing pictures minus `full` alone"
            if spread
            else ("at most: the predicted bucket alone, with its stem; no picture overflowed")
        )
        rows.append(("a misprediction", digits(wrong["ms"]), spread, how))
    assert switch is not None  # one image a run
    spread = f"{digits(switch['min_ms'])} to {digits(switch['max_ms'])}" if "min_ms" in switch else ""
    how = switch.get("note", "an image: the bucket changes at each, minus grouped by bucket")
    rows.append(("switching buckets", digits(switch["ms"]), spread, how))
    return Table(
        "What choosing costs", ("what", "ms", "over the blocks", "measured as"), rows, numeric=(1, 2)
    )


def _throughput_table(name: str, mix: Mix) -> Table:
    rows = []
    for bucket in mix.plan.buckets:
        samples = [ms for block in mix.alone[bucket.name] for ms in block.ms]
        fed = mix.fed.shares.get(bucket.name, 0.0)
        each = 1e3 * mix.batch * len(samples) / sum(samples)
        rows.append(
            (bucket.name, count(bucket.macs), share(fed), digits(percentiles(samples)["p50"]), digits(each))
        )
    again = mix.fed.shares.get(OVERFLOWED, 0.0)
    caption = (
        f"{share(again)} of the pictures overflowed; latencies over a mix are measured at one image a run"
    )
    columns = ("bucket", "MACs", "pictures fed", "alone ms", "alone images/s")
    return Table(
        f"Buckets of {name}, batches of {mix.batch}", columns, rows, numeric=(1, 2, 3, 4), caption=caption
    )


def between(difference: Difference) -> str:
    """The extremes over the blocks, which may be negative."""
    return f"{digits(min(difference.per_block_ms))} to {digits(max(difference.per_block_ms))}"


def digits(number: float) -> str:
    """Three digits: 0.664, 20.7, 1234, -0.0120."""
    return f"{number:.0f}" if abs(number) >= 100 or number == 0 else f"{number:#.3g}"
