"""Operations element by element: arithmetic, comparison, logic, activations, casts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.ops import operation, require_floats

_ONE: dict[str, Callable[[Tensor], Tensor]] = {
    **{"relu": torch.relu, "abs": torch.abs, "sign": torch.sign, "square": torch.square},
    **{"floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "logical_not": torch.logical_not},
}
_ONE_FLOAT: dict[str, Callable[[Tensor], Tensor]] = {
    **{"tanh": torch.tanh, "sigmoid": torch.sigmoid, "erf": torch.erf, "sqrt": torch.sqrt, "exp": torch.exp},
    **{"exp2": torch.exp2, "silu": F.silu, "softplus": F.softplus, "softsign": F.softsign},
    **{"sin": torch.sin, "cos": torch.cos},
}
_TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{"add": torch.add, "sub": torch.sub, "mul": torch.mul, "pow": torch.pow, "mod": torch.remainder},
    **{"maximum": torch.maximum, "minimum": torch.minimum, "floor_div": torch.floor_divide},
    **{"equal": torch.eq, "not_equal": torch.ne, "greater": torch.gt, "greater_equal": torch.ge},
    **{"less": torch.lt, "less_equal": torch.le},
    **{"logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_xor": torch.logical_xor},
}


def _unary(function: Callable[[Tensor], Tensor], floats_alone: bool) -> Callable[[Tensor], Tensor]:
    def evaluate(x: Tensor) -> Tensor:
        if floats_alone:
            require_floats(x)
        return function(x)

    return evaluate


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def evaluate(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return evaluate


for _name, _one in {**_ONE, **_ONE_FLOAT}.items():
    operation(_name)(_unary(_one, floats_alone=_name in _ONE_FLOAT))
for _name, _two in _TWO.items():
    operation(_name)(_binary(_two))


@operation("real_div")
def real_div(x: Tensor, y: Tensor) -> Tensor:
    require_floats(x, y)
    return x / y


@operation("identity", moves=True)
def identity(x: Tensor) -> Tensor:
    return x


@operation("rsqrt")
def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    require_floats(x)
    return 1 / torch.sqrt(x + epsilon)


@operation("inverse")
def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    require_floats(x)
    return 1 / (x + epsilon)


@operation("log")
def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    require_floats(x)
    return torch.log(x + epsilon)


@operation("clip")
def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    require_floats(x)
    return torch.clamp(x, alpha, beta)


@operation("leaky_relu")
def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    require_floats(x)
    return F.leaky_relu(x, alpha)


@operation("gelu")
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """By the error function, by tanh, or by the logistic function of 1.702 x."""
    require_floats(x)
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    if mode not in ("EXACT", "TANH_APPROXIMATION"):
        raise NotImplementedError(f"mode {mode!r}")
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


@operation("select")
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


@operation("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    """Floats lose their fraction and stop at the ends of the integer type, as ARM converts; integers wrap around.

    The second half of both, rounding to fp16 and wrapping, is done to every answer.
    """
    if dtype in ("fp16", "fp32"):
        return x.to(torch.float32)
    if dtype == "bool":
        return x != 0
    bits = int(dtype.lstrip("uint"))
    lowest, highest = (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if x.is_floating_point():
        # float64 holds the ends of int32 exactly, float32 does not
        x = x.to(torch.float64).nan_to_num(0.0, math.inf, -math.inf).clamp(lowest, highest)
    return x.to(torch.int64)
