"""A package's constants as tensors: each is unpacked and converted once, whatever functions read it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.constexpr import CONSTEXPR
from morvit_deploy.exporters.coreml.mil.function import Constant, Operation
from morvit_deploy.exporters.coreml.mil.ops import dense
from morvit_deploy.exporters.coreml.mil.types import NUMPY


class Weights:
    """The constants of one package."""

    def __init__(self) -> None:
        self._tensors: dict[object, Tensor] = {}
        self._unpacked: dict[object, Constant] = {}

    def tensor(self, constant: Constant) -> Tensor:
        """float32, int64 or bool."""
        if (key := _key(constant)) not in self._tensors:
            self._tensors[key] = dense(np.asarray(constant.value))
        return self._tensors[key]

    def unpack(self, operation: Operation, parameters: Mapping[str, Constant]) -> Constant:
        """The weight that a `constexpr_*` unpacks; ValueError where it is not of the declared type."""
        key = (operation.type, *sorted((name, _key(value)) for name, value in parameters.items()))
        if key not in self._unpacked:
            values = CONSTEXPR[operation.type](**{name: held.value for name, held in parameters.items()})
            kind = operation.outputs[0].type
            if values.shape != kind.shape or values.dtype != NUMPY.get(kind.dtype):
                raise ValueError(f"it unpacks to {values.dtype} {values.shape}, expected {kind}")
            self._unpacked[key] = Constant(kind, values)
        return self._unpacked[key]


def _key(constant: Constant) -> object:
    """Equal for constants of the same type and content."""
    return (*constant.stored, constant.type) if constant.stored else constant.digest
