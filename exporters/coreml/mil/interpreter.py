"""Evaluates a saved Core ML package without Core ML.

It shows that the written graph computes what it should, weights and their compression included. fp16 is emulated
operation by operation: inputs are fp16 values, an operation computes in float32, and its result is rounded to fp16,
to nearest even, to infinity from 65520 on, and with subnormal numbers. Products, norms, softmax and attention are one
operation each. fp32 is computed in float32; integers of every width and bool are exact.

It does not show how Apple's kernels round. They may accumulate in fp16, in another order or in wider numbers, keep
intermediate values of fused operations, flush subnormal numbers to zero, or approximate functions; the Neural
Engine's differ from the GPU's. Only a run on the device shows that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.mil.constexpr import Weights
from morvit_deploy.exporters.coreml.mil.function import Function
from morvit_deploy.exporters.coreml.mil.ops import dense
from morvit_deploy.exporters.coreml.mil.package import read_package
from morvit_deploy.exporters.coreml.mil.program import Program
from morvit_deploy.exporters.coreml.mil.step import Value, Values
from morvit_deploy.exporters.coreml.mil.types import NUMPY, Array, ValueType


class MilPackage:
    """A saved package, read once; each function is prepared at its first run.

    Raises BundleError for a damaged package or one of another kind.
    """

    def __init__(self, package: Path) -> None:
        self.package = package
        self._functions = read_package(package)
        self._weights = Weights()
        self._programs: dict[str, Program] = {}
        self._exact_weights = Weights(torch.float64)
        self._exact: dict[str, Program] = {}

    @property
    def functions(self) -> tuple[str, ...]:
        """Their names, in the package's order."""
        return tuple(self._functions)

    def function(self, name: str) -> Function:
        """One function as it is written; BundleError for an unknown name."""
        if name not in self._functions:
            raise BundleError(f"{self.package}: no function {name!r}; it has {', '.join(self.functions)}")
        return self._functions[name]

    def run(self, function: str, feeds: Arrays, keep: Collection[str] = ()) -> Arrays:
        """Map named arrays to named arrays; with `keep`, values inside the function are returned too.

        Outputs have the package's types. A classifier's label is an array of one string or number without axes, its
        dictionary of probabilities an array in the order of the labels. TargetError for an operation that is not
        known here, BundleError for feeds that do not fit or an unknown name.
        """
        written = self.function(function)
        if unknown := sorted(set(keep) - set(written.types)):
            raise BundleError(f"{self.package}: function {function!r} has no value {', '.join(unknown)}")
        tensors = self._checked(function, feeds)
        if function not in self._programs:
            self._programs[function] = Program(written, self._weights)
        with torch.inference_mode():
            values = self._programs[function].run(tensors, keep)
        return {name: _array(values[name], written.types[name]) for name in (*written.outputs, *keep)}

    def evaluate(
        self, function: str, feeds: Arrays, keep: Collection[str], replaced: Mapping[str, Array]
    ) -> Arrays:
        """The values `keep` of a function in float64, whatever its precision, where values inside are `replaced`.

        A replaced value is returned as it was computed. Raises as `run`.
        """
        computed: dict[str, Value] = {}

        def replace(values: Values, name: str) -> None:
            if name in replaced:
                computed[name], values[name] = values[name], torch.from_numpy(replaced[name])

        if function not in self._exact:
            self._exact[function] = Program(self.function(function), self._exact_weights)
        tensors = {name: dense(np.asarray(value), torch.float64) for name, value in feeds.items()}
        with torch.inference_mode():
            values = self._exact[function].run(tensors, keep, replace)
        return {
            name: value.numpy()
            for name, value in (values | computed).items()
            if isinstance(value, torch.Tensor)
        }

    def _checked(self, function: str, feeds: Arrays) -> dict[str, torch.Tensor]:
        inputs = {value.name: value.type for value in self.function(function).inputs}
        if set(feeds) != set(inputs):
            raise BundleError(
                f"{self.package}: function {function!r} takes {sorted(inputs)}, it was given {sorted(feeds)}"
            )
        for name, kind in inputs.items():
            given = np.asarray(feeds[name])
            if not kind.fits(given.shape) or not np.can_cast(given.dtype, NUMPY[kind.dtype], "safe"):
                raise BundleError(
                    f"{self.package}: input {name!r} of function {function!r} is {kind.dtype} {kind.shape}, it was "
                    f"given {given.dtype} {given.shape}"
                )
        return {name: dense(np.asarray(feeds[name])) for name in inputs}


def _array(value: Value, kind: ValueType) -> Array:
    if not isinstance(value, torch.Tensor):
        return np.array(value)
    array: Array = value.numpy()
    return array if kind.dtype == "dictionary" else array.astype(NUMPY[kind.dtype])
