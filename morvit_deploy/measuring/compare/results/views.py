"""Tables, picture and sentence of a comparison. No torch."""

from __future__ import annotations

from pathlib import Path

from morvit_deploy.measuring.compare.results.pareto import Point, pareto
from morvit_deploy.measuring.compare.results.rows import NOISE, Comparison, Row
from morvit_deploy.measuring.compare.running.runtimes import COMPILE, EAGER, ONNX_RUNTIME, OPENVINO
from morvit_deploy.measuring.views import conditions_table
from morvit_deploy.report import Picture, Report, Table, count, share, size, spread, three_digits

_BASELINE = "baseline"  # the kind of a row that is not the user's
_UNKNOWN = "–"
_RUNTIMES = {
    ONNX_RUNTIME: "ONNX Runtime",
    OPENVINO: "OpenVINO",
    EAGER: "PyTorch",
    COMPILE: "torch.compile",
}


def compare_report(result: Comparison) -> Report:
    """Speed, work and memory, what is published, what was not measured, and the conditions."""
    tables = [speed_table(result), cost_table(result)]
    further = (
        throughput_table(result),
        published_table(result),
        left_out_table(result),
        parity_table(result),
    )
    tables += [table for table in further if table.rows]
    tables.append(conditions_table(result.device, result.conditions, result.measured))
    return Report("Comparison", list(tables), result.sentence, picture_of(result))


def sentence_of(result: Comparison) -> str:
    """The first row's time, and which rows are ahead of it; or that the run was too noisy to rank."""
    first, names = result.measured[0], short_names(result)
    time = f"{names[first.name]} takes {three_digits(first.latency_ms['p50'])} ms an image (median)"
    if result.too_noisy:
        return (
            f"{time}. The run was too noisy to rank: half of a model's blocks typically spread over "
            f"{share(result.noise)} of their median, at most {share(NOISE)} expected; repeat it on a quiet machine."
        )
    if first is not result.reference:
        ratio = result.ratio(first)
        reference = names[result.reference.name]
        time += f", {ratio.median:.2f}× ({spread(ratio.per_block)}) as fast as {reference}"
    ahead = [row for row in result.ordered if min(result.ratio(row, first).per_block) > 1]
    if not ahead:
        others = len(result.measured) - 1
        return f"{time}. No other model is ahead." if others else f"{time}."
    listed = ", ".join(f"{names[row.name]} by {result.ratio(row, first).median:.2f}×" for row in ahead)
    return f"{time}. Ahead of it: {listed}."


def speed_table(result: Comparison) -> Table:
    """Rank, warm latency, cold start, and the ratio to the reference with its interval."""
    names, reference = short_names(result), result.reference
    rows = [
        (
            names[row.name],
            result.ranks.get(row.name, ""),
            *(three_digits(row.latency_ms[rank]) for rank in ("p50", "p90")),
            f"{result.ratio(row).median:.2f}×",
            spread(result.ratio(row).per_block),
            three_digits(row.cold_start_ms),
            f"{three_digits(row.by_batch[row.best_batch])} at {row.best_batch}",
        )
        for row in result.measured
    ]
    columns = (
        "model", "rank", "p50 ms", "p90 ms", "times as fast", "over the blocks", "cold start ms", "img/s at batch",
    )  # fmt: skip  # two lines read better than nine
    known = result.conditions
    caption = (
        f"batch 1, {known['blocks']} blocks of {known['runs_per_block']} runs in turn, in another order each; times "
        f"as fast as {names[reference.name]}, block by block; a rank is shared (=) where one is not always faster; "
        "img/s: most images per second, and the batch"
    )
    if result.too_noisy:
        caption += f"; no ranks: blocks typically spread over {share(result.noise)}"
    return Table("Speed", columns, rows, numeric=(1, 2, 3, 4, 5, 6, 7), caption=caption)


def _edges(image: int | tuple[int, int]) -> str:
    return str(image) if isinstance(image, int) else "×".join(map(str, image))


def cost_table(result: Comparison) -> Table:
    """Parameters, MACs counted from the graph, bytes of the files, peak memory of the process."""
    names = short_names(result)
    rows = [
        (
            names[row.name],
            f"{_edges(row.image)} px",
            row.precision,
            _RUNTIMES.get(row.runtime, row.runtime),
            _UNKNOWN if row.parameters is None else count(row.parameters),
            _UNKNOWN if row.macs is None else count(row.macs),
            _UNKNOWN if row.file_bytes is None else size(row.file_bytes),
            f"{row.memory_mib['peak']:.0f}" if "peak" in row.memory_mib else _UNKNOWN,
        )
        for row in result.measured
    ]
    columns = ("model", "image", "precision", "runtime", "parameters", "MACs", "files", "peak MiB")
    caption = (
        "MACs of an image, counted from the graph; where a bucket is chosen, the mean over the timed images"
    )
    return Table("Work and memory", columns, rows, numeric=(4, 5, 6, 7), caption=caption)


def throughput_table(result: Comparison) -> Table:
    """Images per second by batch size, and why larger ones were not tried; empty where none was asked for."""
    rows = [row for row in result.measured if row.throughput is not None]
    sizes = sorted({batch for row in rows for batch in row.by_batch})
    if sizes in ([], [1]):
        rows = []
    names = short_names(result)
    cells = [
        (
            names[row.name],
            *(three_digits(row.by_batch[batch]) if batch in row.by_batch else _UNKNOWN for batch in sizes),
            str(row.best_batch),
            row.throughput.ended if row.throughput else "",
        )
        for row in rows
    ]
    columns = ("model", *(f"batch {batch}" for batch in sizes), "best", "larger batches")
    caption = (
        "images per second; batch 1 is measured in turn, larger ones each row alone, a second each, until two in a "
        "row are slower than a smaller one"
    )
    return Table("Throughput", columns, cells, numeric=tuple(range(1, len(sizes) + 2)), caption=caption)


def published_table(result: Comparison) -> Table:
    """Figures of papers, beside nothing that was measured here."""
    names = short_names(result)
    named = [(names[row.name], row.published) for row in result.measured if row.published is not None]
    named = [
        (name, one) for name, one in named if one.top1_percent is not None or one.images_per_s is not None
    ]
    rows: list[tuple[str, ...]] = [
        (
            name,
            one.method,
            _UNKNOWN if one.top1_percent is None else f"{one.top1_percent:.1f} %",
            _UNKNOWN if one.images_per_s is None else f"{one.images_per_s:g}",
            one.source,
        )
        for name, one in named
    ]
    columns: tuple[str, ...] = ("model", "stands for", "top-1, published", "img/s, published", "source")
    caption = (
        "published by others on other machines, and not measured here; weights here are random unless given"
    )
    if len({row[-1] for row in rows}) == 1:  # said once
        caption = f"source: {rows[0][-1]}; {caption}"
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table("Published figures", columns, rows, numeric=(2, 3), caption=caption)


def left_out_table(result: Comparison) -> Table:
    """What was asked for and not measured."""
    rows = [(one.name, one.reason) for one in result.left_out]
    return Table("Not measured", ("model", "reason"), rows)


def parity_table(result: Comparison) -> Table:
    """Logits of the bundles' rows, compared with those expected before anything was timed."""
    names = short_names(result)
    rows = [
        (
            names.get(name, name),
            str(found["images"]),
            f"{found['max_abs']:.1e}",
            f"{found['tolerance']:.1e}",
            str(found["class_flips"]),
        )
        for name, found in result.conditions["parity"].items()
    ]
    columns = ("model", "images", "largest |Δlogit|", "tolerance", "other classes")
    caption = (
        "logits before anything was timed: of a bundle against its own in another process, of another runtime "
        "against the first bundle's"
    )
    return Table("Parity", columns, rows, numeric=(1, 2, 3, 4), caption=caption)


def picture_of(result: Comparison) -> Picture | None:
    """Median time against MACs."""
    names = short_names(result)
    points = [
        Point(names[row.name], row.macs / 1e9, row.latency_ms["p50"], row.kind != _BASELINE)
        for row in result.measured
        if row.macs
    ]
    caption = "down and left is better; the line joins the models that no other beats in both; blue: yours"
    return pareto("Time and work of an image", points, ("GMACs", "ms, median"), caption)


def short_names(result: Comparison) -> dict[str, str]:
    """Name to what tables show: the last part of a path, unless two rows would look the same."""
    short = {row.name: _last_part(row) for row in result.measured}
    twice = {name for name in short.values() if list(short.values()).count(name) > 1}
    return {name: name if shown in twice else shown for name, shown in short.items()}


def _last_part(row: Row) -> str:
    return Path(row.name).name or row.name
