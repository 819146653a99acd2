"""Command lines: sound ones with words and options added, removed and replaced."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from foreign_checkpoints import SAY
from hypothesis import strategies as st
from promise import OUT, Case, Kind
from typer.main import get_command

from morvit_deploy.cli import app

PATHS = (
    "checkpoint", "bundle", "pictures", "model.pth", "plan.json", "reference.npz", "statistics", "pictures/000.png",
)  # fmt: skip  # a table
ODD = (
    "", " ", ".", "..", "none", "/dev/null", "/proc/self/mem", "x" * 300, "a/" * 200 + "b", "-", "--", "é\u202e",
    "a\nb", "0", "1", "2", "-1", "1e400", "nan", "inf", "9" * 5000, "0.5", "1,2,3", "1/2", "3/2", "2/0", "{}", "[]",
    "null", "%s",
)  # fmt: skip  # a table
WORDS = (
    "onnx", "trt", "coreml", "cpu", "cuda", "fp16", "int8", "graph", "host", "dynamic", "imagenet", "gelu",
    "threshold", "morvit_tiny_digits", "native", "timm_vit",
)  # fmt: skip  # a table
PLACES = (
    "out", "out/deep", "pictures", "pictures/000.png", "model.pth", "checkpoint/config.json", ".", "/dev/null", "",
)  # fmt: skip  # a table
LINES = (
    ("doctor",), ("inspect", "checkpoint"), ("inspect", "model.pth", *SAY),
    ("init", "--preset", "morvit_tiny_digits", "-o", OUT),
    ("inspect", "checkpoint", "--images", "pictures", "-o", OUT), ("convert", "model.pth", "-o", OUT, *SAY),
    ("convert", "model.pth", "--explain", *SAY, "--reference", "reference.npz"), ("predict", "bundle", "pictures"),
    ("predict", "bundle", "pictures/000.png", "--depth-map", OUT), ("verify", "bundle", "--checkpoint", "checkpoint"),
    ("calibrate", "checkpoint", "--merge", "--stats", "statistics", "-o", f"{OUT}/plan.json"),
    ("calibrate", "checkpoint", "--images", "pictures", "--shard", "1/2", "--stats", OUT),
    ("export", "none", "--plan", "plan.json"), ("bench", "none"), ("build", "none"),
)  # fmt: skip  # a table; the last three would take long with sound input
NEVER = {
    "--host", "--ray", "--wait", "--install-completion", "--show-completion", "--force", "--runs", "--preset",
}  # fmt: skip  # networks, hours, and what may replace
MINE = {"--out", "--depth-map", "--stats", "--project"}  # outputs


@cache
def commands() -> dict[str, Any]:
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # a group
    return {name: one for name, one in found.items() if name != "demo"}


@st.composite
def lines(draw: st.DrawFn) -> Case:
    line = draw(st.sampled_from(LINES))
    words, takes_long = [*line], line[0] in ("export", "bench", "build")
    values = st.sampled_from((*ODD, *WORDS) if takes_long else (*PATHS, *PATHS, *ODD, *WORDS))
    options = [
        one
        for one in commands()[line[0]].params
        if one.param_type_name == "option" and not NEVER & {*one.opts}
    ]
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(
            st.sampled_from(("option", "option", "option", "replace", "insert", "remove", "swap", "twice"))
        )
        at = draw(st.integers(1, len(words)))
        if kind == "option":
            option = draw(st.sampled_from(options))
            words.append(draw(st.sampled_from((*option.opts, *option.secondary_opts))))
            if not option.is_flag:
                words.append(draw(st.sampled_from(PLACES) if MINE & {*option.opts} else values))
        elif kind == "insert":
            words.insert(at, draw(values))
        elif at < len(words) and words[at] != "none":
            if kind == "replace":
                words[at] = draw(values)
            elif kind == "remove":
                del words[at]
            elif kind == "swap":
                words[at - 1 : at + 1] = words[at - 1 : at + 1][::-1]
            else:
                words.insert(at, words[at])
    return Case(tuple(words))


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    return lines()


RESULTS = (OUT, "build", "plan.pareto.json", "plan.pareto.png", "morvit_tiny_digits")
KIND = Kind(
    "command line",
    400,
    PATHS[:-1],
    cases,
    outputs=RESULTS,
    names_outputs=True,
    sound=("inspect", "checkpoint"),
)
