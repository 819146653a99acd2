"""Forms of a saved package that the tools ask for: another default function, pictures declared as arrays.

The program and its weights stay as they are: only the description changes. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from morvit_deploy.exporters.coreml.sdk.load import quiet


def variant(ct: Any, package: Path, file: Path, *, function: str | None, arrays: bool) -> Any:
    """Save to `file` (.mlpackage) and return as an unloaded MLModel.

    With `function` it is the default one: a compute plan tells of no other. With `arrays` a picture input is declared
    as what the program takes anyway, float32 (1, 3, height, width) of 0 … 255: coremltools sends a phone only arrays.
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
    """Declare a picture as the tensor that the program takes; other inputs stay."""
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
