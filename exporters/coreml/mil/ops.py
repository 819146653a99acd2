"""Evaluators of MIL operations and their parameters.

An operation is a function whose parameters have MIL's names. Their annotations give the kind of each: a `Tensor` may
be computed in every run; `int`, `Ints`, `float`, `bool`, `Bools`, `str` and `Labels` must be constant. A package with
a parameter that is not in the signature is refused.

Tensors have one of three types: float32 for fp16 and fp32, int64 for every integer, bool. The interpreter converts
each result to the type that the package declares.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.types import Array

Ints: TypeAlias = tuple[int, ...]
Bools: TypeAlias = tuple[bool, ...]
Tensors: TypeAlias = tuple[Tensor, ...]
Labels: TypeAlias = tuple[str | int, ...]
Result: TypeAlias = Tensor | tuple[Tensor | str | int, ...]

_SEVERAL = (Ints, Bools, Labels)


@dataclass(frozen=True)
class Evaluator:
    """An operation's function and the kinds of its parameters: Tensor, Tensors or the type of a constant.

    With `moves`, it returns values unchanged, which need no rounding.
    """

    function: Callable[..., Result]
    parameters: Mapping[str, object]
    required: frozenset[str]
    moves: bool = False


def evaluator(function: Callable[..., Result], *, moves: bool = False) -> Evaluator:
    """An operation with parameters from the function's signature."""
    signature = inspect.signature(function, eval_str=True).parameters
    takes = {name: _without_none(parameter.annotation) for name, parameter in signature.items()}
    required = {name for name, parameter in signature.items() if parameter.default is parameter.empty}
    return Evaluator(function, takes, frozenset(required), moves)


# Any: the type of a parameter is known only when a package is read
def as_constant(value: Any, kind: Any) -> Any:
    """A constant (an array, a tensor, a string or a list) as the type that a parameter takes."""
    plain = value if isinstance(value, (str, list)) else value.tolist()
    if kind in _SEVERAL:
        return tuple(plain) if isinstance(plain, list) else (plain,)
    if isinstance(plain, list):
        if len(plain) != 1:
            raise ValueError(f"got {len(plain)} values, expected one")
        (plain,) = plain
    return kind(plain)


def dense(values: Array, floats: torch.dtype = torch.float32) -> Tensor:
    """A numpy array as one of the three types that tensors hold here; `floats` is that of floating point."""
    # torch warns of arrays that cannot be written to
    tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
    if tensor.dtype == torch.bool:
        return tensor
    return tensor.to(floats if tensor.is_floating_point() else torch.int64)


def _without_none(annotation: object) -> object:
    """`Tensor` for `Tensor | None`."""
    if not isinstance(annotation, UnionType):
        return annotation
    return next(option for option in get_args(annotation) if option is not type(None))
