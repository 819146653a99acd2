"""The report of a conversion: what was detected, settings, and the mapping of tensors. No torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.report import Report, Table, count
from morvit_deploy.sources.outputs.gap import described

if TYPE_CHECKING:
    from morvit_deploy.sources.conversion import Converted
    from morvit_deploy.sources.settings.arguments import Arguments


def conversion_report(converted: Converted, out: Path | None, explain: bool) -> Report:
    """Return the report of a conversion; with `explain`, with a row for each source tensor."""
    title = f"{converted.source}: {converted.title}"
    tables = [source_table(converted, out), settled_table(converted)]
    tables.append(tensor_table(converted) if explain else tensor_summary(converted))
    settled = "not written (no -o DIR)" if out is None else f"written to {out}"
    outcome = f"{converted.source} is {converted.title}; every tensor was read, and it was {settled}."
    return Report(title, list(tables), outcome)


def source_table(converted: Converted, out: Path | None) -> Table:
    """Return the family, the keys it was detected from, and the files."""
    contents, model = converted.contents, converted.model
    rows = [("family", converted.family), ("detected from", "\n".join(converted.because))]
    rows.append(("files", "\n".join(contents.files)))
    if contents.wrapper:
        rows.append(("entry", contents.wrapper))
    if contents.prefix:
        rows.append(("prefix", f"{contents.prefix} (removed from every key)"))
    rows.append(("ties", converted.tied))
    rows.append(("parameters", count(sum(p.numel() for p in model.parameters()))))
    rows.append(("reading", described(converted.reference)))
    rows += arguments_rows(contents.arguments)
    rows += [("remark", remark) for remark in converted.remarks]
    rows += [("warning", warning) for warning in converted.warnings]
    rows.append(("written", "no; use -o DIR" if out is None else str(out)))
    return Table("Checkpoint", ("what", "value"), rows)


def arguments_rows(arguments: Arguments) -> list[tuple[str, str]]:
    """Return the arguments of the training script in the file: those that were used, and those that were not."""
    used, unread = sorted(arguments.used), arguments.unread()
    rows = [("arguments used", ", ".join(used))] if used else []
    return rows + ([("arguments not used", ", ".join(unread))] if unread else [])


def settled_table(converted: Converted) -> Table:
    """Return the settings that affect logits but are not stored in tensors."""
    rows = [(name, _short(one.value), one.origin) for name, one in sorted(converted.settled.items())]
    return Table("Settings not stored in tensors", ("setting", "value", "from"), rows)


def tensor_summary(converted: Converted) -> Table:
    """Return the number of tensors by rule."""
    totals = Counter(row.how for row in converted.rows)
    rows = [(how, str(number)) for how, number in totals.most_common()]
    dropped = Counter(converted.contents.dropped.values())
    rows += [(f"not converted: {why}", str(number)) for why, number in dropped.most_common()]
    caption = "--explain lists the tensors one by one"
    return Table("Tensors of the file", ("rule", "tensors"), rows, numeric=(1,), caption=caption)


def tensor_table(converted: Converted) -> Table:
    """Return a row for each source key."""
    rows = [
        (row.source, "×".join(map(str, row.shape)) or "1", row.target or "–", row.how)
        for row in converted.rows
    ]
    rows += [(name, "", "–", f"not converted: {why}") for name, why in converted.contents.dropped.items()]
    return Table("Tensors", ("source", "shape", "target", "rule"), rows)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
