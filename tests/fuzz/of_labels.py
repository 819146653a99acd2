"""`labels.csv` beside pictures."""

from __future__ import annotations

import csv
from pathlib import Path

from hypothesis import strategies as st
from mutations import bytes_of
from promise import OUT, Case, Ended, Kind

FILE = "pictures/labels.csv"
WORDS = ("inspect", "checkpoint", "--images", "pictures", "-o", OUT, "--draw", "1", "--json")
CELLS = (
    "000.png", "001.png", "", "0", "9", "10", "-1", "1e3", "07", "²", "file", "label", "../pictures/000.png",
    "/dev/null", "none.png", 'a "b"', "a,b", "a\nb", "\0", "x" * 300, "labels.csv", "9" * 5000,
)  # fmt: skip  # a table


@st.composite
def damaged(draw: st.DrawFn, seeds: Path) -> Case:
    content = (seeds / FILE).read_bytes()
    if draw(st.booleans()):
        return Case(WORDS, {FILE: draw(bytes_of(content))})
    rows = [*csv.reader(content.decode().splitlines())]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        kind = draw(st.sampled_from(("cell", "more", "fewer", "twice")))
        if kind == "cell" and row:
            row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(CELLS))
        elif kind == "more":
            row.append(draw(st.sampled_from(CELLS)))
        elif kind == "fewer" and row:
            row.pop()
        else:
            rows.append([*row])
    text = "\n".join(",".join(row) for row in rows)
    codec = draw(st.sampled_from(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")))
    return Case(WORDS, {FILE: text.encode(codec, errors="replace")})


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """No picture is counted twice."""
    text = (folder / FILE).read_text(encoding="utf-8-sig")
    files = [row.get("file") for row in csv.DictReader(text.splitlines())]
    return "" if len({*files}) == len(files) else "accepted a picture that is listed twice"


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    return damaged(seeds)


KIND = Kind("labels", 100, ("checkpoint", "pictures"), cases, wrong, sound=WORDS)
