"""One operation that runs for every image, and the types that its results take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.function import Operation
from morvit_deploy.exporters.coreml.mil.ops import Evaluator, Result
from morvit_deploy.exporters.coreml.mil.types import FLOATS, ValueType

Value: TypeAlias = Tensor | str | int  # a computed value: a tensor, or the label that `classify` returns
Values: TypeAlias = dict[str, Value]


@dataclass
class Step:
    """An operation with its constant parameters."""

    operation: Operation
    evaluator: Evaluator
    given: dict[str, Any]  # constant parameters, of the types that the evaluator takes
    reads: dict[str, str | tuple[str, ...]]  # parameter -> the values that it reads
    frees: list[str] = field(default_factory=list)  # values that no later step reads
    floats: torch.dtype = torch.float32  # of floating point; float64: without rounding

    def run(self, values: Values) -> None:
        """Read from `values` and put the results there, in the types that the package declares."""
        computed = {
            name: values[read] if isinstance(read, str) else tuple(values[part] for part in read)
            for name, read in self.reads.items()
        }
        result: Result = self.evaluator.function(**self.given, **computed)
        results = result if isinstance(result, tuple) else (result,)
        outputs = self.operation.outputs
        if len(results) != len(outputs):
            raise ValueError(f"{len(results)} results, {len(outputs)} expected")
        for one, output in zip(results, outputs, strict=True):
            if self.floats != torch.float32 and isinstance(one, Tensor) and one.is_floating_point():
                one = one.to(self.floats)
            values[output.name] = to_type(one, output.type, self.floats, exact=self.evaluator.moves)


def to_type(
    result: Value, kind: ValueType, floats: torch.dtype = torch.float32, *, exact: bool = False
) -> Value:
    """Round a result to fp16 or wrap it around as its declared type does; an `exact` one stays as it is.

    Floats other than float32 are not rounded.

    ValueError for another shape or another kind of numbers.
    """
    if not isinstance(result, Tensor) or kind.dtype == "dictionary":
        return result
    if not kind.fits(result.shape):
        raise ValueError(f"its result has shape {tuple(result.shape)}, the package says {kind.shape}")
    category = "float" if kind.dtype in FLOATS else "bool" if kind.dtype == "bool" else "integer"
    if result.dtype != {"float": floats, "bool": torch.bool, "integer": torch.int64}[category]:
        raise ValueError(f"its result is {result.dtype}, the package says {kind.dtype}")
    if exact:
        return result
    if kind.dtype == "fp16" and floats == torch.float32:
        return result.half().float()
    return result if category != "integer" else _wrap(result, kind.dtype)


def _wrap(result: Tensor, dtype: str) -> Tensor:
    """The low bits, as integer arithmetic of that width leaves them."""
    bits = int(dtype.lstrip("uint"))
    lowest = 0 if dtype.startswith("u") else -(1 << (bits - 1))
    return result if bits == 64 else ((result - lowest) & ((1 << bits) - 1)) + lowest
