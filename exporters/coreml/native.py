"""Runs a package's functions on Core ML itself: macOS only."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.mil.types import Array
from morvit_deploy.exporters.coreml.mlpackage.save import MODEL
from morvit_deploy.exporters.coreml.sdk.load import Message, Model, coremltools, quiet
from morvit_deploy.exporters.functions.running import Predict
from morvit_deploy.files import temporary

# types that an output array can have; MIL and descriptions have the same names for them
TYPES = ("FLOAT16", "FLOAT32", "INT32")


def load_native(package: Path, *, several: bool, pixels: bool) -> Callable[[str], Predict]:
    """Loader of the package's functions; values inside become outputs of a copy of the package."""

    def load(function: str) -> Predict:
        models: dict[tuple[str, ...], Model] = {}

        def run(feeds: Arrays, probes: list[str]) -> Arrays:
            key = tuple(probes)
            if key not in models:
                place = expose(package, function, probes) if probes else package
                models[key] = _model(place, function if several else None)
            images = {"image": picture(feeds["image"])} if pixels and "image" in feeds else {}
            found = models[key].predict(feeds | images)
            return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}

        return run

    return load


def _model(package: Path, function: str | None) -> Model:
    ct = coremltools()
    try:
        with quiet():
            return ct.models.MLModel(str(package), function_name=function)
    except RuntimeError as error:
        raise BundleError(f"Core ML cannot load {package}, function {function or 'main'}: {error}") from error


def picture(pixels: Array) -> Image.Image:
    """(1, 3, height, width) pixel values as the image that Core ML takes."""
    picture = pixels[0].transpose(1, 2, 0).astype(np.uint8)
    return Image.fromarray(picture if picture.shape[2] > 1 else picture[..., 0])


def expose(package: Path, function: str, values: list[str]) -> Path:
    """A copy of a package whose function also returns values inside it; removed when this process ends."""
    from coremltools.proto import Model_pb2

    until_exit = ExitStack()
    atexit.register(until_exit.close)
    copy = until_exit.enter_context(temporary("mil")) / package.name
    shutil.copytree(package, copy)
    model = Model_pb2.Model()
    model.ParseFromString((copy / MODEL).read_bytes())
    (block,) = model.mlProgram.functions[function].block_specializations.values()
    described = [one for one in model.description.functions if one.name == function] or [model.description]
    _add_outputs(block, described[0], values)
    (copy / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    return copy


def _add_outputs(block: Message, described: Message, values: list[str]) -> None:
    """Add values to the outputs of a function's block and of its description, if their type is one of TYPES."""
    from coremltools.proto import MIL_pb2
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType

    made = {value.name: value for operation in block.operations for value in operation.outputs}
    for name in values:
        tensor = made[name].type.tensorType
        kind = MIL_pb2.DataType.Name(tensor.dataType)
        if name in block.outputs or kind not in TYPES:
            continue
        block.outputs.append(name)
        port = described.output.add()
        port.name = name
        port.type.multiArrayType.shape.extend(dim.constant.size for dim in tensor.dimensions)
        port.type.multiArrayType.dataType = ArrayFeatureType.ArrayDataType.Value(kind)
