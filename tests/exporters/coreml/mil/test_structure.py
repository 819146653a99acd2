"""What is read off a saved package: MACs, uses of weights, what must not be, what leaves the Neural Engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import mb, save_program

from morvit_deploy.exporters.coreml.mil.function import Function
from morvit_deploy.exporters.coreml.mil.neural_engine import OPERATIONS, leaving
from morvit_deploy.exporters.coreml.mil.package import read_package
from morvit_deploy.exporters.coreml.mil.structure import count_macs, violations
from morvit_deploy.exporters.coreml.mil.types import Value, ValueType
from morvit_deploy.exporters.functions.macs import Macs

WEIGHT = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
KERNEL = np.zeros((8, 2, 3, 5), np.float32)
ROWS = {"x": ((6, 32), "fp32")}


def read(folder: Path, body: Callable[..., Any], inputs: dict[str, Any], ios: int = 18) -> Function:
    return read_package(save_program(folder / "p.mlpackage", body, inputs, ios))["main"]


def hot_rows(labels: Any) -> Any:
    """A matrix (4, 6) of zeros and ones."""
    hot = mb.equal(x=mb.expand_dims(x=labels, axes=[1]), y=np.arange(6, dtype=np.int32)[None, :])
    return mb.slice_by_index(x=mb.cast(x=hot, dtype="fp32"), begin=[0, 0], end=[4, 6])


def selected(x: Any, labels: Any, left: bool) -> Any:
    """Rows of x by such a matrix."""
    if left:
        return mb.matmul(x=hot_rows(labels), y=x)
    return mb.matmul(x=mb.transpose(x=x, perm=[1, 0]), y=mb.transpose(x=hot_rows(labels), perm=[1, 0]))


COUNTED: dict[str, tuple[Callable[..., Any], dict[str, Any], Macs]] = {
    "linear": (lambda x: mb.linear(x=x, weight=WEIGHT), ROWS, Macs(6 * 32 * 64, 0)),
    "conv": (
        lambda x: mb.conv(x=x, weight=KERNEL, groups=2, strides=[2, 1]),
        {"x": ((1, 4, 9, 9), "fp32")},
        Macs(8 * 4 * 5 * 2 * 3 * 5, 0),  # (out, height, width) of sums over (channels of a group, kernel)
    ),
    "matmul": (
        lambda x, y: mb.matmul(x=x, y=y),
        {"x": ((3, 4, 5), "fp32"), "y": ((3, 5, 7), "fp32")},
        Macs(3 * 4 * 5 * 7, 0),
    ),
    "matmul, x turned": (
        lambda x, y: mb.matmul(x=x, y=y, transpose_x=True),
        {"x": ((3, 5, 4), "fp32"), "y": ((3, 5, 7), "fp32")},
        Macs(3 * 4 * 5 * 7, 0),
    ),
    "matmul, y turned": (
        lambda x, y: mb.matmul(x=x, y=y, transpose_y=True),
        {"x": ((3, 4, 5), "fp32"), "y": ((3, 7, 5), "fp32")},
        Macs(3 * 4 * 5 * 7, 0),
    ),
    "attention": (
        lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
        {"q": ((2, 4, 8), "fp32"), "k": ((2, 6, 8), "fp32"), "v": ((2, 6, 10), "fp32")},
        Macs(2 * 4 * 6 * (8 + 10), 0),
    ),
    "selection left of the rows": (
        lambda x, labels: selected(x, labels, left=True),
        ROWS | {"labels": ((6,), "int32")},
        Macs(0, 4 * 6 * 32),
    ),
    "selection right of the channels": (
        lambda x, labels: selected(x, labels, left=False),
        ROWS | {"labels": ((6,), "int32")},
        Macs(0, 4 * 6 * 32),
    ),
    "einsum": (
        lambda x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        {"x": ((1, 4, 7, 6), "fp32"), "y": ((1, 6, 7, 5), "fp32")},
        Macs(4 * 7 * 6 * 5, 0),
    ),
    "numbers of selected rows": (
        lambda labels: mb.linear(x=hot_rows(labels), weight=np.arange(6, dtype=np.float32)[None]),
        {"labels": ((6,), "int32")},
        Macs(0, 4 * 6),
    ),
    "no product": (lambda x: mb.add(x=x, y=x), ROWS, Macs(0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_macs(name: str, tmp_path: Path) -> None:
    body, inputs, expected = COUNTED[name]
    assert count_macs(read(tmp_path, body, inputs)) == expected


def test_an_open_dimension_cannot_be_counted_and_is_told(tmp_path: Path) -> None:
    function = read(tmp_path, lambda x: mb.linear(x=x, weight=WEIGHT), ROWS)
    assert violations(function) == []
    *others, last = function.operations
    opened = replace(last, outputs=(Value(last.outputs[0].name, ValueType("fp32", (None, 64))),))
    function = replace(function, operations=(*others, opened))
    (told,) = violations(function)
    assert "open dimension: (None, 64)" in told
    with pytest.raises(ValueError, match="not known"):
        count_macs(function)


def test_work_that_depends_on_the_image_is_told(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        parts = mb.scatter(data=x, indices=np.array([0, 1], np.int32), updates=WEIGHT[:2], axis=0)
        looped = mb.while_loop(
            _cond=lambda y, i: mb.less(x=i, y=3),
            _body=lambda y, i: (mb.scatter(data=y, indices=i, updates=WEIGHT[0], axis=0), mb.add(x=i, y=1)),
            loop_vars=(parts, np.int32(0)),
        )
        return looped[0]

    told = violations(read(tmp_path, body, ROWS))
    assert [line.split()[2] for line in told] == ["scatter", "while_loop", "scatter"]


def test_what_leaves_the_engine_is_counted(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        values, order = mb.topk(x=x, k=3, axis=1)
        later = mb.add(x=order, y=np.int32(1))
        return mb.gather_along_axis(x=mb.cast(x=values, dtype="fp16"), indices=later, axis=1)

    told = {item.what: item for item in leaving(read(tmp_path, body, {"x": ((4, 32), "fp16")}))}
    assert {what: item.count for what, item in told.items()} == {
        "topk": 1,
        "gather_along_axis": 1,
        "add of int32": 1,
    }
    assert told["topk"].source == "https://github.com/roboflow/rf-detr/pull/1495"


def test_a_function_that_stays(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        return mb.softmax(x=mb.linear(x=x, weight=WEIGHT.astype(np.float16)), axis=-1)

    assert leaving(read(tmp_path, body, {"x": ((4, 32), "fp16")})) == []


def test_fp32_does_not_stay(tmp_path: Path) -> None:
    (told,) = leaving(read(tmp_path, lambda x: mb.linear(x=x, weight=WEIGHT), ROWS))
    assert told.what == "linear in fp32"


def test_every_reason_has_a_source() -> None:
    assert all(why.said and why.source.startswith("https://") for why in OPERATIONS.values())
