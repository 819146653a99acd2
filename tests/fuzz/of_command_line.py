"""Command lines: options of every command with values of any kind. What takes long gets no sound input."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from promise import Case, Kind
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
TAKES_LONG = ("bench", "export", "build")  # with sound input
NEVER = {
    "--host", "--ray", "--wait", "--install-completion", "--show-completion", "--force", "--runs", "--preset",
}  # fmt: skip  # networks, hours, and what may replace
MINE = ("--out", "--depth-map", "--stats", "--project")  # outputs


@cache
def commands() -> dict[str, Any]:
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # a group
    return {name: one for name, one in found.items() if name != "demo"}


@st.composite
def lines(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(sorted(commands())))
    values = st.sampled_from((*ODD, *WORDS) if name in TAKES_LONG else (*PATHS, *PATHS, *ODD, *WORDS))
    words = draw(st.lists(values, max_size=3))
    options = [
        one for one in commands()[name].params if one.param_type_name == "option" and not NEVER & {*one.opts}
    ]
    for option in draw(st.lists(st.sampled_from(options), max_size=4)):
        words.append(draw(st.sampled_from((*option.opts, *option.secondary_opts))))
        if not option.is_flag:
            words.append(draw(st.sampled_from(PLACES) if {*MINE} & {*option.opts} else values))
    if draw(st.booleans()):
        words = draw(st.permutations(words))
    return Case((name, *words) if draw(st.integers(0, 9)) else (*words, name))


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    return lines()


RESULTS = ("out", "build", "plan.pareto.json", "plan.pareto.png")
KIND = Kind("command line", 1200, PATHS[:-1], cases, outputs=RESULTS, sound=("inspect", "checkpoint"))
