"""A browser's rows in the table of conditions, and what the page shows at the end. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morvit_deploy.layout import held
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.report import numbered, three_digits


def browser_rows(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows for the table of conditions; empty for another device."""
    if "browser" not in known:
        return []
    found = known["browser"]
    isolated = (
        "isolated from other origins" if found["cross_origin_isolated"] else "not isolated from other origins"
    )
    backend = found["backend"] + (f" on {found['gpu']}" if found["backend"] == "webgpu" else "")
    return [
        ("browser", f"{found['name']} {found['version']}{', without a window' if found['headless'] else ''}"),
        ("browser's system", found["system"]),
        ("backend", f"{backend}, {'SIMD' if found['simd'] else 'no SIMD'}, {isolated}"),
        ("timer", f"steps of {three_digits(found['timer_ms'])} ms; {_samples(found['runs_per_sample'])}"),
    ]


def last_words(result: BenchResult) -> dict[str, Any]:
    """The page's last message: the result in a sentence, and rows of figures."""
    first, known = result.measured[0], result.conditions["browser"]
    median = three_digits(first.latency_ms["p50"])
    rows = [row for one in result.measured for row in _figures(one)]
    rows += [(f"speed against {Path(ratio.against).name}", f"{ratio.median:.2f}×") for ratio in result.ratios]
    rows += [
        ("browser", f"{known['name']} {known['version']}"),
        ("backend", f"{known['backend']}, {numbered(result.conditions['threads'], 'thread')}"),
        *(("warning", sentence) for sentence in result.warnings),
    ]
    text = f"Done. One run of {numbered(first.batch, 'image')} takes {median} ms (median)."
    return {
        "do": "end",
        "good": True,
        "text": held(text),
        "rows": [[name, held(cell)] for name, cell in rows],
    }


def _figures(one: MeasuredBundle) -> list[tuple[str, str]]:
    p50, p90 = (three_digits(one.latency_ms[rank]) for rank in ("p50", "p90"))
    return [
        ("bundle", Path(one.name).name),
        ("latency", f"median {p50} ms, 90 % of the runs within {p90} ms"),
        ("images per second", three_digits(one.images_per_s)),
        ("loading", f"{three_digits(one.start_ms('load_ms'))} ms"),
    ]


def _samples(groups: Mapping[str, int]) -> str:
    """How runs were grouped, in words."""
    most = max(groups.values(), default=1)
    if most == 1:
        return "every run is a sample"
    each = ", ".join(dict.fromkeys(f"{group}" for group in groups.values()))
    return f"a sample is the mean of {each} consecutive runs of a picture"
