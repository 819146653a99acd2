"""Prepares a function of a Core ML package: converts constants, binds parameters, finds last readers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.exporters.coreml.mil.constexpr import CONSTEXPR, Weights
from morvit_deploy.exporters.coreml.mil.function import Constant, Function, Operation
from morvit_deploy.exporters.coreml.mil.operations import OPERATIONS
from morvit_deploy.exporters.coreml.mil.ops import Evaluator, Tensors, as_constant
from morvit_deploy.exporters.coreml.mil.step import Step, Value, Values

Known: TypeAlias = Constant | Value  # a constant, or a value that is computed from constants alone


class Program:
    """A function that can be run. TargetError for an operation or a parameter that is not implemented."""

    def __init__(self, function: Function, weights: Weights) -> None:
        self.function = function
        self._weights = weights
        self._known: dict[str, Known] = {}  # the values that are the same in every run
        self._computed = {value.name for value in function.inputs}  # names of the others
        self._beside: Values = {}  # constants that are read in one tuple with computed values
        self._steps = [step for op in function.operations if (step := self._bind(op)) is not None]
        self._note_last_readers()

    def run(
        self,
        feeds: Mapping[str, Tensor],
        keep: Collection[str],
        replace: Callable[[Values, str], None] | None = None,
    ) -> Values:
        """Named inputs to the named outputs, and to the values inside that `keep` names.

        `replace` is called with all values and the name of each that was just computed, and may change it.
        """
        kept = {*self.function.outputs, *keep}
        values: Values = {**self._beside, **feeds}
        for step in self._steps:
            with self._naming(step.operation):
                step.run(values)
            if replace is not None:
                for output in step.operation.outputs:
                    replace(values, output.name)
            for name in step.frees:
                if name not in kept:
                    del values[name]
        return {name: values[name] if name in values else self._value(self._known[name]) for name in kept}

    def _bind(self, operation: Operation) -> Step | None:
        """The step of an operation; None if its value is constant."""
        if operation.type == "const":
            self._known[operation.outputs[0].name] = operation.constant
            return None
        with self._naming(operation):
            if operation.type in CONSTEXPR:
                self._known[operation.outputs[0].name] = self._unpacked(operation)
                return None
            if operation.type not in OPERATIONS:
                raise NotImplementedError("this operation is not known")
            return self._folded(self._step(operation, OPERATIONS[operation.type]))

    def _unpacked(self, operation: Operation) -> Constant:
        parameters = {name: self._lookup(reads[0]) for name, reads in operation.inputs.items()}
        constants = {name: known for name, known in parameters.items() if isinstance(known, Constant)}
        if len(constants) != len(parameters):
            raise ValueError("it reads a value that is not constant")
        return self._weights.unpack(operation, constants)

    def _step(self, operation: Operation, evaluator: Evaluator) -> Step:
        step = Step(operation, evaluator, {}, {}, floats=self._weights.floats)
        if missing := evaluator.required - set(operation.inputs):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        for name, reads in operation.inputs.items():
            kind = evaluator.parameters.get(name)
            if kind is None:
                raise NotImplementedError(f"its parameter {name!r} is not known")
            if kind == Tensors:
                self._bind_several(step, name, reads)
            elif len(reads) != 1:
                raise ValueError(f"{name!r} reads {len(reads)} values, one expected")
            else:
                self._bind_one(step, name, reads[0], kind)
        return step

    def _bind_one(self, step: Step, name: str, read: str | Constant, kind: object) -> None:
        known = self._lookup(read)
        if kind is not Tensor:
            if known is None:
                raise NotImplementedError(f"its parameter {name!r} is computed, and known only as a constant")
            step.given[name] = as_constant(known.value if isinstance(known, Constant) else known, kind)
        elif known is not None:
            step.given[name] = self._value(known)
        else:
            step.reads[name] = str(read)

    def _bind_several(self, step: Step, name: str, reads: Sequence[str | Constant]) -> None:
        known = [self._lookup(read) for read in reads]
        if None not in known:
            step.given[name] = tuple(self._value(item) for item in known if item is not None)
            return
        names = [
            read if isinstance(read, str) else f"{step.operation.name}.{at}" for at, read in enumerate(reads)
        ]
        self._beside |= {
            name: self._value(item) for name, item in zip(names, known, strict=True) if item is not None
        }
        step.reads[name] = tuple(names)

    def _folded(self, step: Step) -> Step | None:
        """The step; None if it reads only constants, as it then runs here, once."""
        if step.reads:
            self._computed |= {output.name for output in step.operation.outputs}
            return step
        values: Values = {}
        with torch.inference_mode():
            step.run(values)
        self._known |= values
        return None

    def _lookup(self, read: str | Constant) -> Known | None:
        """A constant value; None for one that is computed in every run."""
        if isinstance(read, Constant):
            return read
        if read not in self._known and read not in self._computed:
            raise ValueError(f"it reads {read!r}, which nothing computes before it")
        return self._known.get(read)

    def _value(self, known: Known) -> Value:
        if not isinstance(known, Constant):
            return known
        return known.value if isinstance(known.value, str) else self._weights.tensor(known)

    def _note_last_readers(self) -> None:
        last: dict[str, Step] = {}
        for step in self._steps:
            read = (names if isinstance(names, tuple) else (names,) for names in step.reads.values())
            made = (output.name for output in step.operation.outputs)  # perhaps nothing reads it
            last |= dict.fromkeys([*(name for names in read for name in names), *made], step)
        for name, step in last.items():
            step.frees.append(name)

    @contextmanager
    def _naming(self, operation: Operation) -> Iterator[None]:
        """Add the operation to errors: TargetError for what is not implemented, BundleError for a changed package."""
        place = f"operation {operation.type} ({operation.name!r}) of function {self.function.name!r}"
        try:
            yield
        except NotImplementedError as error:
            raise TargetError(f"{place}: {error}; only Core ML itself can run this package") from error
        except (ValueError, IndexError, RuntimeError, KeyError, TypeError) as error:
            raise BundleError(f"{place}: {error}; the package was changed: export it again") from error
