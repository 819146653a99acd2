"""Reads the file of ONNX Runtime's profiler. No torch."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_SUFFIX = "_kernel_time"


def node_times(file: Path, runs: int) -> dict[str, float]:
    """Milliseconds a run of each node by name, the mean over the middle half of the last `runs` runs.

    The half in the middle, by the time of all nodes of a run: a run that something disturbed counts for nothing.
    """
    every: dict[str, list[float]] = defaultdict(list)
    events: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            every[event["name"].removesuffix(_SUFFIX)].append(event["dur"] / 1e3)
    return _typical({name: times[-runs:] for name, times in every.items() if len(times) >= runs})


def _typical(every: Mapping[str, list[float]]) -> dict[str, float]:
    if not every:
        return {}
    table = np.array(list(every.values()))  # (nodes, runs)
    order = np.argsort(table.sum(axis=0), kind="stable")
    quarter = len(order) // 4
    middle = table[:, order[quarter : len(order) - quarter]].mean(axis=1)
    return dict(zip(every, middle.tolist(), strict=True))
