"""How a MIL operation is evaluated: the table of operations, and how an operation's parameters are given to it.

An operation is a function whose parameters bear MIL's names. Their annotations say what each one takes: a `Tensor`
may be computed while the function runs; `int`, `Ints`, `float`, `bool`, `Bools`, `str` and `Labels` must be constant.
What the signature does not name, it does not know, and a package that uses it is refused.

Tensors hold one of three types: float32 for fp16 and fp32, int64 for every integer, bool. The interpreter brings each
answer to the type that the package declares.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

Ints: TypeAlias = tuple[int, ...]
Bools: TypeAlias = tuple[bool, ...]
Tensors: TypeAlias = tuple[Tensor, ...]
Labels: TypeAlias = tuple[str | int, ...]

_Kind = TypeVar("_Kind", bound=Callable[..., Any])
_SEVERAL = (Ints, Bools, Labels)


@dataclass(frozen=True)
class Evaluator:
    """An operation's function, and what its parameters take: Tensor, Tensors or the type of a constant.

    One that only `moves` answers values as it read them, which need no rounding.
    """

    function: Callable[..., Any]
    parameters: Mapping[str, Any]
    required: frozenset[str]
    moves: bool = False


OPERATIONS: dict[str, Evaluator] = {}


def operation(*names: str, moves: bool = False) -> Callable[[_Kind], _Kind]:
    """Enter a function into the table under MIL's names."""

    def enter(function: _Kind) -> _Kind:
        signature = inspect.signature(function, eval_str=True).parameters
        takes = {name: _without_none(parameter.annotation) for name, parameter in signature.items()}
        required = frozenset(
            name for name, told in signature.items() if told.default is inspect.Parameter.empty
        )
        OPERATIONS.update({name: Evaluator(function, takes, required, moves) for name in names})
        return function

    return enter


def as_constant(value: Any, kind: Any) -> Any:
    """A constant (an array, a tensor, a string or a list) as what a parameter takes."""
    plain = value if isinstance(value, (str, list)) else value.tolist()
    if kind in _SEVERAL:
        return tuple(plain) if isinstance(plain, list) else (plain,)
    if isinstance(plain, list):
        if len(plain) != 1:
            raise ValueError(f"{len(plain)} values where one is taken")
        (plain,) = plain
    return kind(plain)


def require_floats(*tensors: Tensor) -> None:
    """NotImplementedError for integers, of which MIL does not say how they are rounded."""
    if any(not tensor.is_floating_point() for tensor in tensors):
        raise NotImplementedError("it is known for fp16 and fp32 alone, not for integers")


def dense(values: NDArray) -> Tensor:
    """A numpy array as one of the three types that tensors hold here."""
    tensor = torch.from_numpy(
        values if values.flags.writeable else values.copy()
    )  # torch warns of read-only ones
    if tensor.dtype == torch.bool:
        return tensor
    return tensor.to(torch.float32 if tensor.is_floating_point() else torch.int64)


def _without_none(annotation: Any) -> Any:
    """`Tensor` for `Tensor | None`."""
    options = [option for option in getattr(annotation, "__args__", ()) if option is not type(None)]
    is_union = type(None) in getattr(annotation, "__args__", ())
    return options[0] if is_union else annotation
