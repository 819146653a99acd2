"""One function of a Core ML package, made ready to run: constants converted, parameters given, last readers known."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.exporters.coreml.mil import (
    ops_arithmetic,  # noqa: F401  # they enter their operations into the table
    ops_indices,  # noqa: F401  # they enter their operations into the table
    ops_products,  # noqa: F401  # they enter their operations into the table
    ops_shapes,  # noqa: F401  # they enter their operations into the table
)
from morvit_deploy.exporters.coreml.mil.constexpr import CONSTEXPR
from morvit_deploy.exporters.coreml.mil.ops import OPERATIONS, Evaluator, Tensors, as_constant, dense
from morvit_deploy.exporters.coreml.mil.package import Constant, Function, Operation
from morvit_deploy.exporters.coreml.mil.types import FLOATS, NUMPY, ValueType

Computed: TypeAlias = Any  # a tensor, or the label that `classify` answers
Known: TypeAlias = Any  # a constant, or what is computed of constants alone


class Weights:
    """A package's constants as tensors: each is unpacked and converted once, whatever functions read it."""

    def __init__(self) -> None:
        self._tensors: dict[object, Tensor] = {}
        self._unpacked: dict[object, Constant] = {}

    def tensor(self, constant: Constant) -> Tensor:
        """float32, int64 or bool."""
        if (key := _key(constant)) not in self._tensors:
            self._tensors[key] = dense(np.asarray(constant.value))
        return self._tensors[key]

    def unpack(self, operation: Operation, parameters: Mapping[str, Constant]) -> Constant:
        """What a `constexpr_*` stands for."""
        key = (operation.type, *sorted((name, _key(value)) for name, value in parameters.items()))
        if key not in self._unpacked:
            dense_values = CONSTEXPR[operation.type](
                **{name: told.value for name, told in parameters.items()}
            )
            kind = operation.outputs[0].type
            if dense_values.shape != kind.shape or dense_values.dtype != NUMPY.get(kind.dtype):
                raise ValueError(f"it unpacks to {dense_values.dtype} {dense_values.shape}, expected {kind}")
            self._unpacked[key] = Constant(kind, dense_values)
        return self._unpacked[key]


@dataclass
class Step:
    """One operation that is computed in every run."""

    operation: Operation
    evaluator: Evaluator
    given: dict[str, Any]  # parameters that are known
    reads: dict[str, str | tuple[str, ...]]  # parameter -> the values that are computed
    frees: list[str] = field(default_factory=list)  # values that nothing reads after it

    def run(self, values: dict[str, Computed]) -> None:
        """Read from `values` and put the answers there."""
        computed = {
            name: values[read] if isinstance(read, str) else tuple(values[part] for part in read)
            for name, read in self.reads.items()
        }
        self.store(self.evaluator.function(**self.given, **computed), values)

    def store(self, answers: Any, values: dict[str, Computed]) -> None:
        """Bring each answer to the type that the package declares."""
        outputs = self.operation.outputs
        answers = answers if isinstance(answers, tuple) else (answers,)
        if len(answers) != len(outputs):
            raise ValueError(f"{len(answers)} answers, {len(outputs)} expected")
        for answer, output in zip(answers, outputs, strict=True):
            values[output.name] = to_type(answer, output.type, exact=self.evaluator.moves)


class Program:
    """A function that can be run. TargetError for an operation or a parameter that is not known."""

    def __init__(self, function: Function, weights: Weights) -> None:
        self.function = function
        self._weights = weights
        self._known: dict[str, Known] = {}  # name of a value -> what it is in every run
        self._computed = {value.name for value in function.inputs}  # names of the others
        self._beside: dict[str, Tensor] = {}  # constants that are read in one tuple with computed values
        self._steps = [step for op in function.operations if (step := self._bind(op)) is not None]
        self._note_last_readers()

    def run(self, feeds: Mapping[str, Tensor], keep: Collection[str]) -> dict[str, Computed]:
        """Named inputs to the named outputs and to what else is to be kept."""
        kept = {*self.function.outputs, *keep}
        values: dict[str, Computed] = {**self._beside, **feeds}
        for step in self._steps:
            with self._naming(step.operation):
                step.run(values)
            for name in step.frees:
                if name not in kept:
                    del values[name]
        return {name: values[name] if name in values else self._value(self._known[name]) for name in kept}

    def _bind(self, operation: Operation) -> Step | None:
        """None for what is known before anything runs."""
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
            raise ValueError("it reads what is not constant")
        return self._weights.unpack(operation, constants)

    def _step(self, operation: Operation, evaluator: Evaluator) -> Step:
        step = Step(operation, evaluator, {}, {})
        if missing := evaluator.required - set(operation.inputs):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        for name, reads in operation.inputs.items():
            if (kind := evaluator.parameters.get(name)) is None:
                raise NotImplementedError(f"its parameter {name!r} is not known")
            if kind == Tensors:
                self._give_several(step, name, reads)
                continue
            if len(reads) != 1:
                raise ValueError(f"{name!r} reads {len(reads)} values, one expected")
            known = self._lookup(reads[0])
            if kind is not Tensor:
                if known is None:
                    raise NotImplementedError(
                        f"its parameter {name!r} is computed, and known only as a constant"
                    )
                step.given[name] = as_constant(known.value if isinstance(known, Constant) else known, kind)
            elif known is not None:
                step.given[name] = self._value(known)
            else:
                step.reads[name] = str(reads[0])
        return step

    def _give_several(self, step: Step, name: str, reads: Sequence[str | Constant]) -> None:
        items = [self._lookup(read) for read in reads]
        if None not in items:
            step.given[name] = tuple(self._value(item) for item in items if item is not None)
            return
        names = [
            read if isinstance(read, str) else f"{step.operation.name}.{at}" for at, read in enumerate(reads)
        ]
        self._beside |= {
            name: self._value(item) for name, item in zip(names, items, strict=True) if item is not None
        }
        step.reads[name] = tuple(names)

    def _folded(self, step: Step) -> Step | None:
        """The step; None when it reads constants alone, and what it answers is known from here on."""
        if step.reads:
            self._computed |= {output.name for output in step.operation.outputs}
            return step
        values: dict[str, Computed] = {}
        with torch.inference_mode():
            step.run(values)
        self._known |= values
        return None

    def _lookup(self, read: str | Constant) -> Known | None:
        """What is known of a value; None: it is computed in every run."""
        if isinstance(read, Constant):
            return read
        if read not in self._known and read not in self._computed:
            raise ValueError(f"it reads {read!r}, which nothing computes before it")
        return self._known.get(read)

    def _value(self, known: Known) -> Computed:
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
        """Errors that say where they are: TargetError for what is not known here, BundleError for what is wrong."""
        place = f"operation {operation.type} ({operation.name!r}) of function {self.function.name!r}"
        try:
            yield
        except NotImplementedError as error:
            raise TargetError(f"{place}: {error}; only Core ML itself can run this package") from error
        except (ValueError, IndexError, RuntimeError, KeyError, TypeError) as error:
            raise BundleError(f"{place}: {error}; the package was changed: export it again") from error


def to_type(answer: Computed, kind: ValueType, exact: bool) -> Computed:
    """An answer as the declared type holds it: rounded to fp16 or wrapped around, unless it is `exact` as it is.

    ValueError for another shape or another kind of numbers.
    """
    if not isinstance(answer, Tensor) or kind.dtype == "dictionary":
        return answer
    fits = [size is None or size == found for size, found in zip(kind.shape, answer.shape, strict=False)]
    if len(kind.shape) != answer.ndim or not all(fits):
        raise ValueError(f"its answer has shape {tuple(answer.shape)}, the package says {kind.shape}")
    category = "float" if kind.dtype in FLOATS else "bool" if kind.dtype == "bool" else "integer"
    if answer.dtype != _HELD[category]:
        raise ValueError(f"its answer is {answer.dtype}, the package says {kind.dtype}")
    if exact:
        return answer
    if kind.dtype == "fp16":
        return answer.half().float()
    return answer if category != "integer" else _wrap(answer, kind.dtype)


_HELD = {"float": torch.float32, "bool": torch.bool, "integer": torch.int64}


def _wrap(answer: Tensor, dtype: str) -> Tensor:
    """The low bits, as integer arithmetic of that width leaves them."""
    bits = int(dtype.lstrip("uint"))
    lowest = 0 if dtype.startswith("u") else -(1 << (bits - 1))
    return answer if bits == 64 else ((answer - lowest) & ((1 << bits) - 1)) + lowest


def _key(constant: Constant) -> object:
    """Equal for constants of the same type and content."""
    return (*constant.stored, constant.type) if constant.stored else constant.digest
