"""Statistics of shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from mutations import edited, npz_of
from promise import OUT, Case, Ended, Kind
from seeds import PICTURES

PLAN = f"{OUT}/plan.json"
WORDS = ("calibrate", "checkpoint", "--merge", "--stats", "statistics", "-o", PLAN)
SHARES = ("top1_agreement", "trained_top1", "plan_top1", "decision_agreement", "keep_share")


@st.composite
def damaged(draw: st.DrawFn, seeds: Path) -> Case:
    path = draw(st.sampled_from(sorted((seeds / "statistics").iterdir())))
    with np.load(path) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    if draw(st.booleans()):
        head = draw(edited(json.loads(arrays["head"].tobytes())))
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    return Case(WORDS, {f"statistics/{path.name}": draw(npz_of(arrays))})


def numbers(value: Any) -> list[float]:
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, int | float) else []


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """The plan is of all pictures, and its shares are shares."""
    calibration = json.loads((folder / PLAN).read_text())["calibration"]
    if calibration["images"] != PICTURES:
        return f"fitted to {calibration['images']} images, given {PICTURES}"
    outside = [name for name in SHARES for n in numbers(calibration.get(name)) if not 0 <= n <= 1]
    return f"{', '.join(outside)}: outside of 0 to 1" if outside else ""


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    return damaged(seeds)


KIND = Kind("statistics", 200, ("checkpoint", "statistics"), cases, wrong, sound=WORDS)
