"""Weights of a Core ML function in fewer bits, by coremltools' own compression; routers keep theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.coreml import Weights
from morvit_deploy.exporters.coreml_tools import coremltools, quiet
from morvit_deploy.unroll import StaticMoRViT

BLOCK = 32  # int4: elements that share a scale; with one for a whole channel its 16 levels cost classes
PALETTES = {
    "palette8": 8,
    "palette6": 6,
    "palette4": 4,
}  # bits of an index into a table of the weight's own values


def compress(model: Any, weights: Weights, graph: StaticMoRViT) -> Any:
    """The same function with its large weights in int8, int4 or a palette; computed with as floats."""
    if weights == "float":
        return model
    ct = coremltools()
    coreml = ct.optimize.coreml
    with quiet():
        config = coreml.OptimizationConfig(
            global_config=_how(coreml, weights), op_name_configs=dict.fromkeys(_routers(model, graph))
        )
        if weights in PALETTES:
            return coreml.palettize_weights(model, config)
        return coreml.linear_quantize_weights(model, config)


def _how(coreml: Any, weights: Weights) -> Any:
    if weights in PALETTES:
        return coreml.OpPalettizerConfig(mode="kmeans", nbits=PALETTES[weights])
    if weights == "int4":
        return coreml.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=BLOCK
        )
    return coreml.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")


def _routers(model: Any, graph: StaticMoRViT) -> Iterator[str]:
    """Names of the constants that routers read: what decides keeps its precision."""
    keys = {_key(parameter.numpy()) for parameter in graph.routers.parameters() if parameter.ndim > 1}
    for name, held in constants(model):
        if _key(held) in keys:
            yield name


def constants(model: Any) -> Iterator[tuple[str, NDArray]]:
    """Weights of a function that is not saved yet, by the name of their constant."""
    for operation in model._mil_program.functions["main"].find_ops(op_type="const"):
        value = operation.outputs[0].val
        if isinstance(value, np.ndarray) and value.ndim > 1:
            yield operation.name, value


def _key(weight: NDArray) -> tuple[bytes, ...]:
    """The same for a weight and its transpose, in either precision."""
    half = np.squeeze(weight).astype(np.float16)
    return tuple(sorted((half.tobytes(), half.T.tobytes())))
