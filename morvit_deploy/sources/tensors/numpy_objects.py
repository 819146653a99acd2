"""NumPy's scalars and arrays in a pickle, without NumPy's own constructors, which take any bytes as any type.

Training scripts save them beside the weights: the best accuracy, the state of a random generator.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

NUMBER = re.compile(r"[biuf][1248]")  # the types that are read: booleans, integers and floats


class _Type:
    """Stands for `numpy.dtype`."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not NUMBER.fullmatch(code):
            raise ValueError(f"got a NumPy value of type {code!r}, expected numbers")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def read(self, content: bytes | str, count: int) -> Any:
        """Return `count` values; ValueError if the content has another size."""
        raw = content.encode("latin-1") if isinstance(content, str) else content
        values = np.frombuffer(raw, self.order + self.code)
        if len(values) != count:
            raise ValueError(f"got {len(values)} NumPy values, expected {count}")
        return values


class Array:
    """Stands for `numpy.ndarray`; `values` is the array."""

    values: Any = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        flat = kind.read(content, math.prod(shape))
        self.values = flat.reshape(shape, order="F" if by_columns else "C")


def _scalar(kind: _Type, content: bytes | str) -> Any:
    return kind.read(content, 1)[0].item()


def _reconstruct(*_: object) -> Array:
    return Array()


# for torch.serialization.safe_globals: each object, and the name that NumPy 1 or 2 writes for it
READABLE: list[Any] = [
    (_Type, "numpy.dtype"),
    (Array, "numpy.ndarray"),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
