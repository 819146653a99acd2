"""The tables of a file that `gpu.py` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from morvit_deploy.report import Table, spread, three_digits

PAPER, MACS = 2.0, 6.09  # × ViT-B/16: the paper's 1800 / 900 images/s, and what MACs allow
Data = Mapping[str, Any]


def tables(data: Data) -> list[Table]:
    """Everything that the file holds."""
    made = [_conditions(data), _driver(data), _agreement(data), _steps(data), _speed(data), _ratios(data)]
    return [table for table in made if table.rows]


def failures(data: Data) -> list[str]:
    """What failed, by part and name."""
    found = []
    for part in ("driver", "agreement", "speed"):
        for name, result in data.get(part, {}).items():
            if "error" in result or result.get("ok") is False:
                found.append(f"{part}, {name}: {result.get('error') or result.get('found')}")
    return found


def _conditions(data: Data) -> Table:
    rows = [(name, _text(value)) for name, value in data.get("conditions", {}).items() if value is not None]
    return Table("Conditions", ("", ""), rows)


def _text(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _driver(data: Data) -> Table:
    found = data.get("driver", {})
    rows = [(name, "yes" if one["ok"] else "NO", one["found"]) for name, one in found.items() if "ok" in one]
    return Table("The agent's CUDA driver", ("check", "holds", "found"), rows)


def _agreement(data: Data) -> Table:
    rows = [
        (
            model,
            precision,
            _percent(min(one["decisions_equal"])),
            _percent(min(one["kept_equal"])),
            _percent(one["images_equal"]),
            _percent(one["classes_equal"]),
            f"{one['max_logit_difference']:.2g}",
        )
        for model, precision, one in _compared(data)
    ]
    columns = (
        "model", "precision", "equal decisions, worst step", "equal kept tokens, worst step",
        "images with all equal", "equal classes", "largest logit difference",
    )  # fmt: skip
    caption = (
        "against the same static module in float64; `reference`: the reference on the CPU, in float64, too"
    )
    return Table("Routing agreement by precision", columns, rows, (2, 3, 4, 5, 6), caption)


def _steps(data: Data) -> Table:
    rows = [
        (model, precision, ", ".join(f"{100 * share:.2f}" for share in one["decisions_equal"]))
        for model, precision, one in _compared(data)
    ]
    return Table("Equal decisions at each step, %", ("model", "precision", "steps"), rows)


def _compared(data: Data) -> Iterator[tuple[str, str, Data]]:
    for model, results in data.get("agreement", {}).items():
        for precision, one in results.items():
            if isinstance(one, dict) and "decisions_equal" in one:
                yield f"{model}, {one.get('images', results['images'])} images", precision, one


def _speed(data: Data) -> Table:
    rows = [
        (
            group["precision"],
            str(group["batch"]),
            group["attention"],
            one["subject"],
            "graph" if one["cuda_graph"] else "eager",
            three_digits(one["median_ms"]),
            three_digits(one["images_per_s"]),
            spread(one["images_per_s_of_blocks"]),
        )
        for group in _groups(data)
        for one in group["timings"]
    ]
    columns = (
        "precision",
        "batch",
        "attention",
        "module",
        "launch",
        "median ms",
        "images/s",
        "over the blocks",
    )
    return Table("Images per second", columns, rows, (1, 5, 6, 7))


def _ratios(data: Data) -> Table:
    rows = [
        (
            group["precision"],
            str(group["batch"]),
            group["attention"],
            "graph" if one["cuda_graph"] else "eager",
            one["baseline"],
            f"{median(one['per_block']):.2f}",
            spread(one["per_block"]),
        )
        for group in _groups(data)
        for one in group["ratios"]
    ]
    columns = (
        "precision",
        "batch",
        "attention",
        "launch",
        "unrolled against",
        "× measured",
        "over the blocks",
    )
    caption = f"Against ViT-B/16 the paper claims {PAPER} × (1800 / 900 images/s); MACs allow {MACS} ×."
    return Table("Speed-up of the unrolled MoR-ViT-B/16", columns, rows, (1, 5, 6), caption)


def _groups(data: Data) -> list[Data]:
    return [group for group in data.get("speed", {}).values() if "timings" in group]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
