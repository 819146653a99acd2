"""Writing ONNX graphs beside one file of weights: each weight once, whatever the number of graphs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import onnx
from numpy.typing import NDArray
from onnx import external_data_helper, numpy_helper

from morvit_deploy.errors import StructureError
from morvit_deploy.exporters.onnx.graphs.branches import INLINE_BYTES
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.graphs.names import WEIGHTS

PAGE, LINE = 4096, 64  # a weight begins on a page, so that a runtime can map it; a small one on a cache line


def write_graphs(folder: Path, graphs: dict[str, onnx.ModelProto]) -> list[str]:
    """Write each graph under its file name, and `weights.bin`; the names of all files.

    Raises StructureError when the ONNX checker refuses a written graph.
    """
    placed: dict[str, tuple[int, int]] = {}
    with (folder / WEIGHTS).open("wb") as weights:
        for graph in (inner for model in graphs.values() for inner in every_graph(model.graph)):
            for init in graph.initializer:
                array = numpy_helper.to_array(init)
                if array.nbytes >= INLINE_BYTES or _is_integer_weight(array):
                    offset, length = _place(array.tobytes(), weights, placed)
                    init.CopyFrom(numpy_helper.from_array(array, init.name))
                    external_data_helper.set_external_data(init, WEIGHTS, offset, length)
                    init.ClearField("raw_data")
    for name, model in graphs.items():
        onnx.save_model(model, folder / name)
        _check(folder / name)
    return [*graphs, WEIGHTS]


def _is_integer_weight(array: NDArray[Any]) -> bool:
    """Integer weights are stored in the file whatever their size, so that several branches and graphs share them."""
    return (array.dtype.name, array.ndim) in (("int8", 2), ("uint8", 3))


def _place(content: bytes, weights: BinaryIO, placed: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """Write `content` unless the file has it; returns its offset and length."""
    key = hashlib.sha256(content).hexdigest()
    if key not in placed:
        weights.write(b"\0" * (-weights.tell() % (PAGE if len(content) >= 16 * PAGE else LINE)))
        placed[key] = weights.tell(), len(content)
        weights.write(content)
    return placed[key]


def _check(path: Path) -> None:
    """Run the ONNX checker on the written file."""
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StructureError(
            f"the ONNX checker refuses the written {path.name}, so no bundle was written: {error}"
        ) from error
