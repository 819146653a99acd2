"""Every operation of the interpreter, in a program that coremltools saved, against torch in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mil_programs import NUMPY_TYPES, mb, save_program
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
from morvit_deploy.exporters.coreml.mil.operations import OPERATIONS

SINGLE = 1e-5  # float32 against float64, after a few hundred additions of numbers near 1
HALF = 2.0**-11  # half the distance of neighbouring fp16 numbers, as a part of them: one rounding
SMALLEST = 2.0**-25  # half of the smallest fp16 number

SHAPES = {
    **{"x": (2, 3, 4), "y": (2, 3, 4), "p": (2, 3, 4), "m": (2, 4, 5), "rows": (6, 4), "image": (1, 4, 7, 6)},
    **{
        "line": (1, 4, 9),
        "wide": (1, 6, 7, 5),
        "i": (2, 3, 4),
        "j": (2, 3, 4),
        "at": (2, 3, 4),
        "few": (3,),
    },
}
INTEGERS = {
    "i": (-9, 10),
    "j": (1, 6),
    "at": (-3, 3),
    "few": (0, 6),
}  # lowest, above the highest
GENERATOR = np.random.default_rng(7)
WEIGHT = GENERATOR.integers(-8, 9, (5, 4)) / 8  # exact in fp16
KERNEL = GENERATOR.integers(-8, 9, (6, 2, 3, 2)) / 8
KERNEL_1D = GENERATOR.integers(-8, 9, (2, 4, 3)) / 8
KERNEL_3D = GENERATOR.integers(-8, 9, (2, 1, 2, 2, 2)) / 8
GAMMA, BETA = np.array([0.5, 1.5, 2.0, -1.0]), np.array([0.25, -0.5, 0.0, 1.0])
EPSILON = 2.0**-9


@dataclass(frozen=True)
class Case:
    """One use of an operation: how it is built of the inputs, and what it should answer."""

    build: Callable[[SimpleNamespace], Any]
    expect: Callable[[SimpleNamespace], Any]
    operation: str


CASES: dict[str, Case] = {}


def case(name: str, build: Callable[..., Any], expect: Callable[..., Any]) -> None:
    """`name` is MIL's, perhaps with what is special after a colon."""
    assert name not in CASES
    CASES[name] = Case(build, expect, name.split(":")[0])


def simple(name: str, expect: Callable[..., Any], *inputs: str) -> None:
    """An operation without further parameters."""
    parameters = ("x", "y") if len(inputs) == 2 else ("x",)

    def build(v: SimpleNamespace) -> Any:
        reads = (getattr(v, source) for source in inputs)
        return getattr(mb, name.split(":")[0])(**dict(zip(parameters, reads, strict=True)))

    case(name, build, lambda v: expect(*(getattr(v, source) for source in inputs)))


for _name, _expect in {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}.items():
    simple(_name, _expect, "x")
for _name, _expect in {
    **{"add": torch.add, "sub": torch.sub, "mul": torch.mul},
    **{"equal": torch.eq, "greater": torch.gt, "greater_equal": torch.ge},
}.items():
    simple(_name, _expect, "x", "y")
    simple(f"{_name}:integers", _expect, "i", "j")


def positive(v: SimpleNamespace) -> Any:
    return mb.add(x=mb.mul(x=v.x, y=v.x), y=v.real(1.0))


case("real_div", lambda v: mb.real_div(x=v.y, y=positive(v)), lambda v: v.y / (v.x * v.x + 1))
case("rsqrt", lambda v: mb.rsqrt(x=positive(v)), lambda v: 1 / torch.sqrt(v.x * v.x + 1))
case("log", lambda v: mb.log(x=positive(v)), lambda v: torch.log(v.x * v.x + 1))
case(
    "fill_like",
    lambda v: mb.fill_like(ref_tensor=v.x, value=v.real(1.5)),
    lambda v: torch.full_like(v.x, 1.5),
)
case("gelu", lambda v: mb.gelu(x=v.x), lambda v: v.x * 0.5 * (1 + torch.erf(v.x / math.sqrt(2))))
case(
    "gelu:tanh",
    lambda v: mb.gelu(x=v.x, mode="TANH_APPROXIMATION"),
    lambda v: v.x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (v.x + 0.044715 * v.x**3))),
)
case(
    "gelu:sigmoid",
    lambda v: mb.gelu(x=v.x, mode="SIGMOID_APPROXIMATION"),
    lambda v: v.x * torch.sigmoid(1.702 * v.x),
)
for _name, _logic in {"logical_and": torch.logical_and, "logical_or": torch.logical_or}.items():
    case(
        _name,
        lambda v, _name=_name: getattr(mb, _name)(x=mb.greater(x=v.x, y=v.y), y=mb.greater(x=v.p, y=v.x)),
        lambda v, _logic=_logic: _logic(v.x > v.y, v.x < v.p),
    )
case(
    "select",
    lambda v: mb.select(cond=mb.greater(x=v.y, y=v.x), a=v.x, b=v.p),
    lambda v: torch.where(v.x < v.y, v.x, v.p),
)
case("cast:bool", lambda v: mb.cast(x=v.i, dtype="bool"), lambda v: v.i != 0)
case("cast:real", lambda v: mb.cast(x=v.i, dtype=v.dtype), lambda v: v.i.double())
case(
    "cast:toward zero",
    lambda v: mb.cast(x=mb.mul(x=v.x, y=v.real(4.0)), dtype="int32"),
    lambda v: (4 * v.x).trunc().long(),
)
case("cast:int16", lambda v: mb.cast(x=v.i, dtype="int16"), lambda v: v.i)
case("cast:uint16 wraps", lambda v: mb.cast(x=v.i, dtype="uint16"), lambda v: v.i % 65536)
case("cast:int8", lambda v: mb.cast(x=v.i, dtype="int8"), lambda v: v.i)
case("cast:uint8 wraps", lambda v: mb.cast(x=v.i, dtype="uint8"), lambda v: v.i % 256)
case(
    "cast:int16 wraps",
    lambda v: mb.cast(x=mb.cast(x=mb.mul(x=v.i, y=np.int32(16385)), dtype="int16"), dtype="int32"),
    lambda v: (v.i * 16385 + 32768) % 65536 - 32768,
)
case(
    "mul:int32 wraps",
    lambda v: mb.mul(x=v.i, y=np.int32(2**28 + 1)),
    lambda v: (v.i * (2**28 + 1) + 2**31) % 2**32 - 2**31,
)

case("linear", lambda v: mb.linear(x=v.x, weight=v.const(WEIGHT)), lambda v: v.x @ torch.tensor(WEIGHT).T)
case(
    "linear:bias",
    lambda v: mb.linear(x=v.rows, weight=v.const(WEIGHT), bias=v.const(WEIGHT[:, 0])),
    lambda v: v.rows @ torch.tensor(WEIGHT).T + torch.tensor(WEIGHT[:, 0]),
)
case("matmul", lambda v: mb.matmul(x=v.x, y=v.m), lambda v: torch.einsum("bij,bjk->bik", v.x, v.m))
case(
    "matmul:y",
    lambda v: mb.matmul(x=v.x, y=v.y, transpose_y=True),
    lambda v: torch.einsum("bij,bkj->bik", v.x, v.y),
)
case(
    "matmul:x",
    lambda v: mb.matmul(x=v.x, y=v.y, transpose_x=True),
    lambda v: torch.einsum("bji,bjk->bik", v.x, v.y),
)
case(
    "matmul:both",
    lambda v: mb.matmul(x=v.m, y=v.x, transpose_x=True, transpose_y=True),
    lambda v: torch.einsum("bji,bkj->bik", v.m, v.x),
)
case(
    "matmul:two axes",
    lambda v: mb.matmul(x=v.rows, y=v.const(WEIGHT), transpose_y=True),
    lambda v: v.rows @ torch.tensor(WEIGHT).T,
)
case(
    "matmul:broadcast",
    lambda v: mb.matmul(x=v.x, y=v.const(WEIGHT.T)),
    lambda v: v.x @ torch.tensor(WEIGHT).T,
)
case(
    "einsum",
    lambda v: mb.einsum(values=(v.image, v.wide), equation="nchw,nwhu->nchu"),
    lambda v: torch.stack([v.image[0, :, h] @ v.wide[0, :, h] for h in range(7)], 1)[None],
)
case(
    "conv",
    lambda v: mb.conv(
        x=v.image,
        weight=v.const(KERNEL),
        groups=2,
        strides=[2, 1],
        dilations=[1, 2],
        bias=v.const(KERNEL[:, 0, 0, 0]),
    ),
    lambda v: F.conv2d(v.image, torch.tensor(KERNEL), torch.tensor(KERNEL[:, 0, 0, 0]), (2, 1), 0, (1, 2), 2),
)
case(
    "conv:custom",
    lambda v: mb.conv(x=v.image, weight=v.const(KERNEL), groups=2, pad_type="custom", pad=[1, 0, 2, 3]),
    lambda v: F.conv2d(F.pad(v.image, (2, 3, 1, 0)), torch.tensor(KERNEL), groups=2),
)
case(
    "conv:same",
    lambda v: mb.conv(x=v.image, weight=v.const(KERNEL), groups=2, pad_type="same", strides=[2, 2]),
    lambda v: F.conv2d(F.pad(v.image, (0, 0, 1, 1)), torch.tensor(KERNEL), stride=2, groups=2),
)
case(
    "conv:same_lower",
    lambda v: mb.conv(x=v.image, weight=v.const(KERNEL), groups=2, pad_type="same_lower"),
    lambda v: F.conv2d(F.pad(v.image, (1, 0, 1, 1)), torch.tensor(KERNEL), groups=2),
)
case(
    "conv:one axis",
    lambda v: mb.conv(x=v.line, weight=v.const(KERNEL_1D), pad_type="custom", pad=[2, 1]),
    lambda v: F.conv1d(F.pad(v.line, (2, 1)), torch.tensor(KERNEL_1D)),
)
case(
    "conv:three axes",
    lambda v: mb.conv(x=mb.expand_dims(x=v.image, axes=[1]), weight=v.const(KERNEL_3D)),
    lambda v: F.conv3d(v.image.unsqueeze(1), torch.tensor(KERNEL_3D)),
)
case("softmax", lambda v: mb.softmax(x=v.x, axis=-1), lambda v: torch.exp(v.x) / torch.exp(v.x).sum(-1, True))
case(
    "softmax:axis",
    lambda v: mb.softmax(x=v.x, axis=1),
    lambda v: torch.exp(v.x) / torch.exp(v.x).sum(1, True),
)


def normal(x: Tensor, axes: tuple[int, ...], epsilon: float = EPSILON) -> Tensor:
    centred = x - x.mean(axes, True)
    return centred / torch.sqrt((centred**2).mean(axes, True) + epsilon)


def by_channel(values: np.ndarray) -> Tensor:
    return torch.tensor(values).reshape(4, 1, 1)


case(
    "layer_norm",
    lambda v: mb.layer_norm(x=v.x, axes=[-1], epsilon=v.real(EPSILON)),
    lambda v: normal(v.x, (-1,)),
)
case(
    "layer_norm:affine",
    lambda v: mb.layer_norm(
        x=v.x, axes=[-1], gamma=v.const(GAMMA), beta=v.const(BETA), epsilon=v.real(EPSILON)
    ),
    lambda v: normal(v.x, (-1,)) * torch.tensor(GAMMA) + torch.tensor(BETA),
)
case(
    "layer_norm:channels",
    lambda v: mb.layer_norm(
        x=v.image, axes=[1], gamma=v.const(GAMMA), beta=v.const(BETA), epsilon=v.real(EPSILON)
    ),
    lambda v: normal(v.image, (1,)) * by_channel(GAMMA) + by_channel(BETA),
)
case(
    "layer_norm:two axes",
    lambda v: mb.layer_norm(x=v.x, axes=[1, 2], gamma=v.const(WEIGHT[:3]), epsilon=v.real(EPSILON)),
    lambda v: normal(v.x, (1, 2)) * torch.tensor(WEIGHT[:3]),
)
for _name, _reduce in {
    "reduce_sum": torch.sum,
    "reduce_max": torch.amax,
    "reduce_min": torch.amin,
}.items():
    case(
        _name, lambda v, _n=_name: getattr(mb, _n)(x=v.x, axes=[1, -1]), lambda v, _r=_reduce: _r(v.x, (1, 2))
    )
    case(
        f"{_name}:kept",
        lambda v, _n=_name: getattr(mb, _n)(x=v.i, axes=[1], keep_dims=True),
        lambda v, _r=_reduce: _r(v.i, 1, True),
    )
case("reduce_mean", lambda v: mb.reduce_mean(x=v.x, axes=[1, -1]), lambda v: v.x.mean((1, 2)))
case(
    "reduce_mean:kept",
    lambda v: mb.reduce_mean(x=v.x, axes=[1], keep_dims=True),
    lambda v: v.x.mean(1, keepdim=True),
)
case("reduce_argmax", lambda v: mb.reduce_argmax(x=v.x, axis=1), lambda v: v.x.argmax(1))
case(
    "reduce_argmin", lambda v: mb.reduce_argmin(x=v.x, axis=2, keep_dims=True), lambda v: v.x.argmin(2, True)
)

case("reshape", lambda v: mb.reshape(x=v.x, shape=[4, 6]), lambda v: v.x.reshape(4, 6))
case("reshape:0 and -1", lambda v: mb.reshape(x=v.x, shape=[0, -1, 2]), lambda v: v.x.reshape(2, 6, 2))
case("transpose", lambda v: mb.transpose(x=v.x, perm=[2, 0, 1]), lambda v: v.x.permute(2, 0, 1))
case("transpose:negative", lambda v: mb.transpose(x=v.x, perm=[-2, -3, 2]), lambda v: v.x.permute(1, 0, 2))
case("expand_dims", lambda v: mb.expand_dims(x=v.x, axes=[0, -1]), lambda v: v.x[None, ..., None])
case("tile", lambda v: mb.tile(x=v.x, reps=[1, 2, 3]), lambda v: torch.cat([torch.cat([v.x] * 2, 1)] * 3, 2))
case("concat", lambda v: mb.concat(values=[v.x, v.y, v.x], axis=1), lambda v: torch.cat([v.x, v.y, v.x], 1))
case(
    "concat:constant",
    lambda v: mb.concat(values=[v.const(WEIGHT), v.rows], axis=0),
    lambda v: torch.cat([torch.tensor(WEIGHT), v.rows]),
)
case(
    "concat:interleave",
    lambda v: mb.concat(values=[v.x, v.y], axis=1, interleave=True),
    lambda v: torch.stack([part for row in range(3) for part in (v.x[:, row], v.y[:, row])], 1),
)
case("split", lambda v: mb.split(x=v.x, split_sizes=[1, 3], axis=-1), lambda v: (v.x[..., :1], v.x[..., 1:]))
case("split:equal", lambda v: mb.split(x=v.x, num_splits=2, axis=2), lambda v: (v.x[..., :2], v.x[..., 2:]))
case(
    "slice_by_index",
    lambda v: mb.slice_by_index(x=v.x, begin=[0, 1, 1], end=[1, 3, 3]),
    lambda v: v.x[0:1, 1:3, 1:3],
)
case(
    "slice_by_index:masks",
    lambda v: mb.slice_by_index(
        x=v.x,
        begin=[1, 9, -3],
        end=[7, 9, 9],
        begin_mask=[False, True, False],
        end_mask=[False, True, True],
        squeeze_mask=[True, False, False],
    ),
    lambda v: v.x[1, :, -3:],
)
case(
    "slice_by_index:stride",
    lambda v: mb.slice_by_index(x=v.x, begin=[0, 0, 0], end=[2, 3, 4], stride=[1, 2, 3]),
    lambda v: v.x[:, ::2, ::3],
)
case(
    "slice_by_index:backwards",
    lambda v: mb.slice_by_index(
        x=v.x, begin=[0, 2, -1], end=[2, 0, 0], stride=[1, -1, -2], end_mask=[False, False, True]
    ),
    lambda v: torch.tensor(v.x.numpy()[:, 2:0:-1, ::-2].copy()),
)
case(
    "slice_by_index:negative end",
    lambda v: mb.slice_by_index(x=v.x, begin=[0, 0, 0], end=[2, -1, -2]),
    lambda v: v.x[:, :-1, :-2],
)
case("gather", lambda v: mb.gather(x=v.x, indices=[2, 0, 0], axis=1), lambda v: v.x[:, [2, 0, 0]])
case("gather:computed", lambda v: mb.gather(x=v.rows, indices=v.few, axis=0), lambda v: v.rows[v.few])
case("gather:number", lambda v: mb.gather(x=v.x, indices=1, axis=-1), lambda v: v.x[..., 1])
case("gather:negative", lambda v: mb.gather(x=v.x, indices=v.at, axis=1), lambda v: v.x[:, v.at % 3])
case(
    "gather:batch",
    lambda v: mb.gather(x=v.x, indices=[[2, 0], [1, 1]], axis=1, batch_dims=1),
    lambda v: torch.stack([v.x[0][[2, 0]], v.x[1][[1, 1]]]),
)


def ranked(x: Tensor, axis: int, descending: bool) -> Tensor:
    """Indices by value; of equal ones the lower first (numpy)."""
    return torch.from_numpy(np.argsort(-x.numpy() if descending else x.numpy(), axis, kind="stable"))


def whole(v: SimpleNamespace, name: str = "x") -> Any:
    """Numbers without their fraction, so that some are equal."""
    return mb.cast(x=mb.cast(x=getattr(v, name), dtype="int32"), dtype=v.dtype)


def best(x: Tensor, axis: int, k: int, descending: bool = True) -> tuple[Tensor, Tensor]:
    order = ranked(x, axis, descending).narrow(axis, 0, k)
    return torch.take_along_dim(x, order, axis), order


case("topk", lambda v: mb.topk(x=v.x, k=2, axis=-1), lambda v: best(v.x, -1, 2))
case(
    "topk:ascending", lambda v: mb.topk(x=v.x, k=2, axis=1, ascending=True), lambda v: best(v.x, 1, 2, False)
)
case("topk:ties", lambda v: mb.topk(x=whole(v), k=3, axis=-1), lambda v: best(v.x.trunc(), -1, 3))
case(
    "topk:uint16",
    lambda v: mb.topk(x=v.x, k=1, axis=1, output_indices_dtype="uint16"),
    lambda v: best(v.x, 1, 1),
)
case(
    "topk:values", lambda v: mb.topk(x=v.x, k=2, axis=-1, return_indices=False), lambda v: best(v.x, -1, 2)[0]
)
case("topk:integers", lambda v: mb.topk(x=v.i, k=3, axis=2, sort=True), lambda v: best(v.i, 2, 3))
case("argsort", lambda v: mb.argsort(x=v.x, axis=1), lambda v: ranked(v.x, 1, True))
case(
    "argsort:ties",
    lambda v: mb.argsort(x=whole(v), axis=-1, ascending=True),
    lambda v: ranked(v.x.trunc(), -1, False),
)
case(
    "argsort:many ties",  # short sorts keep the order of equal values even where they need not
    lambda v: mb.argsort(x=mb.reshape(x=whole(v, "image"), shape=[168]), axis=0),
    lambda v: ranked(v.image.reshape(168).trunc(), 0, True),
)
case(
    "topk:many ties",
    lambda v: mb.topk(x=mb.reshape(x=whole(v, "image"), shape=[168]), k=100, axis=0),
    lambda v: best(v.image.reshape(168).trunc(), 0, 100),
)
ATTENTION = "scaled_dot_product_attention"


def attended(x: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    scores = torch.einsum("bqe,bke->bqk", x, x) / 2.0 + bias  # √4
    return torch.einsum("bqk,bke->bqe", torch.exp(scores) / torch.exp(scores).sum(-1, True), x)


IOS_18 = {
    ATTENTION: (
        lambda v: mb.scaled_dot_product_attention(query=v.x, key=v.x, value=v.x),
        lambda v: attended(v.x),
    ),
    f"{ATTENTION}:mask": (
        lambda v: mb.scaled_dot_product_attention(
            query=v.x, key=v.x, value=v.x, attn_mask=v.const(WEIGHT[:3, :3])
        ),
        lambda v: attended(v.x, torch.tensor(WEIGHT[:3, :3])),
    ),
    f"{ATTENTION}:bool": (
        lambda v: mb.scaled_dot_product_attention(
            query=v.x, key=v.x, value=v.x, attn_mask=np.tri(3, dtype=bool)
        ),
        lambda v: attended(v.x, torch.tensor(np.where(np.tri(3), 0.0, -np.inf))),
    ),
}
for _name, (_build, _expect) in IOS_18.items():
    case(_name, _build, _expect)


def made_inputs() -> dict[str, np.ndarray]:
    """Numbers that fp16 holds exactly, without ties unless `whole` makes them."""
    generator = np.random.default_rng(11)
    made: dict[str, np.ndarray] = {}
    for name, shape in SHAPES.items():
        if name in INTEGERS:
            made[name] = generator.integers(*INTEGERS[name], shape).astype(np.int32)
        else:
            eighths = generator.permutation(np.prod(shape)) - np.prod(shape) // 2
            made[name] = (eighths / 16).reshape(shape).astype(np.float32)
    made["p"] = np.abs(made["p"]) + np.float32(0.125)
    return made


INPUTS = made_inputs()


@dataclass(frozen=True)
class Ran:
    """A saved program of all cases, and what the interpreter answered for each."""

    answers: dict[str, tuple[np.ndarray, ...]]
    operations: dict[str, str]  # name of a value -> type of its operation
    names: dict[str, tuple[str, ...]]


def run_all(folder: Path, dtype: str, ios: int) -> Ran:
    names: dict[str, tuple[str, ...]] = {}
    kind: Any = NUMPY_TYPES[dtype]

    def body(**inputs: Any) -> Any:
        values = SimpleNamespace(
            **inputs, dtype=dtype, real=kind, const=lambda array: np.asarray(array).astype(kind)
        )
        for name, told in CASES.items():
            if ios < 18 and told.operation == ATTENTION:
                continue
            built = told.build(values)
            built = built if isinstance(built, (tuple, list)) else (built,)
            names[name] = tuple(value.name for value in built)
        return mb.relu(x=inputs["x"])

    listed = {name: (shape, "int32" if name in INTEGERS else dtype) for name, shape in SHAPES.items()}
    package = MilPackage(save_program(folder / "ops.mlpackage", body, listed, ios))
    feeds = {name: array.astype(NUMPY_TYPES[listed[name][1]]) for name, array in INPUTS.items()}
    wanted = [value for values in names.values() for value in values]
    answers = package.run("main", feeds, keep=wanted)
    operations = {value.name: op.type for op in package.function("main").operations for value in op.outputs}
    return Ran({name: tuple(answers[v] for v in values) for name, values in names.items()}, operations, names)


FORMS = {"fp32 iOS17": ("fp32", 17), "fp16 iOS18": ("fp16", 18)}


@pytest.fixture(scope="module", params=FORMS)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_all(tmp_path_factory.mktemp("ops"), *FORMS[request.param])


@pytest.mark.parametrize("name", CASES)
def test_operation(ran: Ran, name: str) -> None:
    if name not in ran.answers:
        pytest.skip("an operation of iOS 18")
    assert ran.operations[ran.names[name][0]] == CASES[name].operation  # the saved program has it
    values = {key: torch.from_numpy(array) for key, array in INPUTS.items()}
    values = {key: v.double() if v.is_floating_point() else v.long() for key, v in values.items()}
    expected = CASES[name].expect(SimpleNamespace(**values))
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(expected) == len(ran.answers[name])
    for answer, told in zip(ran.answers[name], expected, strict=True):
        assert answer.shape == tuple(told.shape)
        if answer.dtype.kind in "iub":
            np.testing.assert_array_equal(answer, told.numpy())
            continue
        distance = np.abs(answer.astype(np.float64) - told.numpy())
        allowed = SINGLE * np.maximum(1, np.abs(told.numpy()))
        if answer.dtype == np.float16:
            allowed = allowed + HALF * np.abs(told.numpy()) + SMALLEST
        assert (distance <= allowed).all(), (answer, told)


def test_every_operation_has_a_case() -> None:
    elsewhere = {"classify"}  # test_interpreter: coremltools makes it of a classifier's labels
    assert {told.operation for told in CASES.values()} == set(OPERATIONS) - elsewhere
