"""A package's functions on Core ML itself: macOS only."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morvit_deploy.bundle.session import Arrays
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.mlpackage.save import MODEL
from morvit_deploy.exporters.coreml.sdk.tools import coremltools, quiet

Answer = Callable[[Arrays, list[str]], Arrays]

TYPES = (
    "FLOAT16",
    "FLOAT32",
    "INT32",
)  # that an output array can have; MIL and descriptions call them the same


def load_native(package: Path, *, several: bool, pixels: bool) -> Callable[[str], Answer]:
    """A function of the package, loaded when it is asked for; values inside it become outputs of a copy."""

    def load(function: str) -> Answer:
        models: dict[tuple[str, ...], Any] = {}

        def answer(feeds: Arrays, probes: list[str]) -> Arrays:
            key = tuple(probes)
            if key not in models:
                place = expose(package, function, probes) if probes else package
                models[key] = _model(place, function if several else None)
            found = models[key].predict(
                feeds | ({"image": picture(feeds["image"])} if pixels and "image" in feeds else {})
            )
            return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}

        return answer

    return load


def _model(package: Path, function: str | None) -> Any:
    ct = coremltools()
    try:
        with quiet():
            return ct.models.MLModel(str(package), function_name=function)
    except RuntimeError as error:
        raise BundleError(f"Core ML cannot load {package}, function {function or 'main'}: {error}") from error


def picture(pixels: NDArray) -> Image.Image:
    """(1, 3, height, width) pixel values as Core ML takes an image."""
    return Image.fromarray(pixels[0].transpose(1, 2, 0).astype(np.uint8))


def expose(package: Path, function: str, values: list[str]) -> Path:
    """A copy of a package whose function also answers values inside it; it is removed with this process."""
    from coremltools.proto import MIL_pb2, Model_pb2
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType

    scratch = Path(tempfile.mkdtemp(prefix="morvit-mil-"))
    copy = scratch / package.name
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    shutil.copytree(package, copy)
    spec = Model_pb2.Model()
    spec.ParseFromString((copy / MODEL).read_bytes())
    (block,) = spec.mlProgram.functions[function].block_specializations.values()
    made = {value.name: value for operation in block.operations for value in operation.outputs}
    described = [one for one in spec.description.functions if one.name == function] or [spec.description]
    for name in values:
        tensor = made[name].type.tensorType
        kind = MIL_pb2.DataType.Name(tensor.dataType)
        if name in block.outputs or kind not in TYPES:
            continue
        block.outputs.append(name)
        port = described[0].output.add()
        port.name = name
        port.type.multiArrayType.shape.extend(dim.constant.size for dim in tensor.dimensions)
        port.type.multiArrayType.dataType = ArrayFeatureType.ArrayDataType.Value(kind)
    (copy / MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    return copy
