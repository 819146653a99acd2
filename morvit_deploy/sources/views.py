"""How a conversion reads: what was recognised, what was settled, what became of each tensor. No torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.report import Report, Table, count

if TYPE_CHECKING:
    from morvit_deploy.sources.conversion import Converted


def conversion_report(converted: Converted, out: Path | None, explain: bool) -> Report:
    """Tables for a person; with `explain`, a row for each source tensor."""
    title = f"{converted.source}: {converted.title}"
    tables = [source_table(converted, out), settled_table(converted)]
    tables.append(tensor_table(converted) if explain else tensor_summary(converted))
    return Report(title, list(tables))


def source_table(converted: Converted, out: Path | None) -> Table:
    """What it is, and what it was detected from."""
    contents, model = converted.contents, converted.model
    rows = [("family", converted.family), ("told by", "\n".join(converted.because))]
    rows.append(("files", "\n".join(contents.files)))
    if contents.wrapper:
        rows.append(("entry", contents.wrapper))
    if contents.prefix:
        rows.append(("prefix", f"{contents.prefix} (every key had it)"))
    rows.append(("ties", converted.tied))
    rows.append(("parameters", count(sum(p.numel() for p in model.parameters()))))
    rows += [("remark", remark) for remark in converted.remarks]
    rows.append(("written", "nothing; -o DIR writes it" if out is None else str(out)))
    return Table("Checkpoint", ("what", "value"), rows)


def settled_table(converted: Converted) -> Table:
    """What changes logits and is in no tensor."""
    rows = [(name, _short(one.value), one.origin) for name, one in sorted(converted.settled.items())]
    return Table("What no tensor shows", ("what", "value", "from"), rows)


def tensor_summary(converted: Converted) -> Table:
    """How many tensors each rule took."""
    totals = Counter(row.how for row in converted.rows)
    rows = [(how, str(number)) for how, number in totals.most_common()]
    dropped = Counter(converted.contents.dropped.values())
    rows += [(f"left in the file: {why}", str(number)) for why, number in dropped.most_common()]
    caption = "every tensor is in one of these rows; --explain lists them one by one"
    return Table("Tensors of the file", ("rule", "tensors"), rows, numeric=(1,), caption=caption)


def tensor_table(converted: Converted) -> Table:
    """Every source key, and what became of it."""
    rows = [
        (row.source, "×".join(map(str, row.shape)) or "1", row.target or "–", row.how)
        for row in converted.rows
    ]
    rows += [(name, "", "–", f"left in the file: {why}") for name, why in converted.contents.dropped.items()]
    return Table("Tensors", ("source", "shape", "target", "rule"), rows)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
