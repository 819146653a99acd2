"""Core ML on this Mac through coremltools: the backend of `measure.py`, and variants of a saved package. No torch.

Times are Core ML's own (`load_duration_in_nano_seconds`, `last_predict_duration_in_nano_seconds`), without Python and
the conversion of arrays. A second load, of the compiled package, is timed from outside.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import MorvitError, TargetError
from morvit_deploy.exporters.coreml.sdk.bundle import Package
from morvit_deploy.exporters.coreml.sdk.load import coremltools, quiet
from morvit_deploy.measuring.apple.dispatching import UNITS, Reply
from morvit_deploy.measuring.apple.placement import CPU, GPU, NE, NOT_TOLD, PlacedOp
from morvit_deploy.timing.loop import ms_of

NS_PER_MS = 1e6
DEVICES = {"MLNeuralEngineComputeDevice": NE, "MLGPUComputeDevice": GPU, "MLCPUComputeDevice": CPU}


@contextmanager
def core_ml(doing: str) -> Iterator[None]:
    """Raise what coremltools raises as TargetError."""
    try:
        yield
    except MorvitError:
        raise
    except Exception as error:  # RuntimeError mostly; its types are not documented
        raise TargetError(f"Core ML failed at {doing}: {error}") from error


class MacFunction:
    """A function that Core ML has loaded here."""

    def __init__(self, ct: Any, path: Path, function: str | None, units: str) -> None:
        self._ct, self._function = ct, function
        self._units, self._name = ct.ComputeUnit[UNITS[units]], f"{function or path.name} for {units}"
        with (
            core_ml(f"loading {self._name}"),
            warnings.catch_warnings(record=True) as said,  # coremltools warns instead of raising
        ):
            warnings.simplefilter("always")
            model = ct.models.MLModel(str(path), compute_units=self._units, function_name=function)
        if model.__proxy__ is None:  # then its times raise AttributeError
            why = "; ".join(str(one.message) for one in said) or "this system is too old for the package"
            raise TargetError(f"Core ML cannot load {self._name}: {why}")
        self._model: Any = model
        self.load_ms = model.load_duration_in_nano_seconds / NS_PER_MS

    def run(self, feeds: Mapping[str, Any]) -> Reply:
        with core_ml(f"running {self._name}"):
            outputs = self._model.predict(dict(feeds))
        return Reply(outputs, self._model.last_predict_duration_in_nano_seconds / NS_PER_MS)

    def times(self, feeds: Mapping[str, Any], runs: int) -> list[float]:
        return [self.run(feeds).ms for _ in range(runs)]

    def reload(self) -> float:
        path, compiled = self._model.get_compiled_model_path(), self._ct.models.CompiledMLModel
        with core_ml(f"loading {self._name} again"):
            return ms_of(lambda: compiled(path, compute_units=self._units, function_name=self._function))

    def close(self) -> None:
        self._model = None


class Mac:
    """This Mac; `work` is a folder for compiled packages."""

    device = "mac"
    together = True

    def __init__(self, package: Package, work: Path) -> None:
        self.package, self.work = package, work
        self._ct = coremltools()
        self._compiled: dict[str, str] = {}

    def open(self, function: str, units: str) -> MacFunction:
        return MacFunction(self._ct, self.package.path, self._named(function), units)

    def picture(self, pixels: NDArray[np.uint8]) -> Any:
        if self.package.input == "float":
            return self.package.array(pixels)
        from PIL import Image

        return Image.fromarray(pixels)

    def placement(self, function: str, units: str) -> Sequence[PlacedOp]:
        if function not in self._compiled:
            file = self.work / f"{function}.mlpackage"
            variant(self._ct, self.package.path, file, function=self._named(function), arrays=False)
            compiled = str(self.work / f"{function}.mlmodelc")
            self._compiled[function] = self._ct.models.utils.compile_model(
                str(file), destination_path=compiled
            )
        try:
            with quiet():
                plan = self._ct.models.compute_plan.MLComputePlan.load_from_path(
                    path=self._compiled[function], compute_units=self._ct.ComputeUnit[UNITS[units]]
                )
        except (RuntimeError, ValueError) as error:
            raise TargetError(f"Core ML returns no compute plan of {function}: {error}") from None
        return list(placed(plan, function))

    def _named(self, function: str) -> str | None:
        """A package of one function is loaded without its name, which iOS 17 does not support."""
        return function if self.package.adaptive else None


def placed(plan: Any, function: str) -> Iterator[PlacedOp]:
    """Operations of an MLComputePlan's function; those without device and cost, such as constants, are left out."""
    program = plan.model_structure.program
    if program is None or function not in program.functions:
        raise TargetError(
            f"Core ML's compute plan has no function {function!r}, so its operations have no placement"
        )
    for op in _operations(program.functions[function].block):
        usage = plan.get_compute_device_usage_for_mlprogram_operation(op)
        cost = plan.get_estimated_cost_for_mlprogram_operation(op)
        if usage is None and cost is None:
            continue
        output = op.outputs[0].name if op.outputs else ""
        weight = None if cost is None else float(cost.weight)
        if usage is None:
            yield PlacedOp(op.operator_name, output, NOT_TOLD, (), weight)
        else:
            supported = tuple(_device(one) for one in usage.supported_compute_devices)
            yield PlacedOp(
                op.operator_name, output, _device(usage.preferred_compute_device), supported, weight
            )


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def _device(device: Any) -> str:
    return DEVICES.get(type(device).__name__, NOT_TOLD)


def variant(ct: Any, package: Path, file: Path, *, function: str | None, arrays: bool) -> Any:
    """Save to `file` (.mlpackage) and return as an unloaded MLModel.

    `function` becomes the default one, the only one that a compute plan shows. With `arrays`, a picture input is
    declared as the float32 (1, 3, height, width) of 0 … 255 that the program takes: coremltools sends phones only
    arrays.
    """
    with quiet():
        saved = ct.models.MLModel(str(package), skip_model_load=True)
        spec = saved.get_spec()
        if function is not None and len(spec.description.functions):
            spec.description.defaultFunctionName = function
        if arrays:
            for feature in _inputs(spec):
                declare_array(ct, feature)
        changed = ct.models.MLModel(spec, weights_dir=saved.weights_dir, skip_model_load=True)
        changed.save(str(file))
        return changed


def declare_array(ct: Any, feature: Any) -> None:
    """Declare a picture input as the tensor that the program takes; other inputs are unchanged."""
    if feature.type.WhichOneof("Type") != "imageType":
        return
    height, width = feature.type.imageType.height, feature.type.imageType.width
    array = feature.type.multiArrayType  # touching it leaves imageType
    array.shape.extend([1, 3, height, width])
    array.dataType = ct.proto.FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.FLOAT32


def _inputs(spec: Any) -> Iterator[Any]:
    yield from spec.description.input
    for function in spec.description.functions:
        yield from function.input
