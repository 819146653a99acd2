"""Compresses the weights of a Core ML function with coremltools; routers keep their precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from morvit_deploy.exporters.coreml.contract.names import Weights
from morvit_deploy.exporters.coreml.mil.types import Array
from morvit_deploy.exporters.coreml.mlpackage.convert import Converted
from morvit_deploy.exporters.coreml.mlpackage.upstream import quick_passes
from morvit_deploy.exporters.coreml.sdk.load import Model, coremltools, quiet
from morvit_deploy.graph.unroll import StaticMoRViT

BLOCK = 32  # int4: elements that share a scale; with one scale a channel, 16 levels cost top-1
# bits of an index into a table of the weight's own values
PALETTES = {"palette8": 8, "palette6": 6, "palette4": 4}


def compress(converted: Converted, weights: Weights, graph: StaticMoRViT) -> Model:
    """The same function with its large weights stored as int8, int4 or a palette; it computes with floats."""
    if weights == "float":
        return converted.model
    coreml = coremltools().optimize.coreml
    kept = dict.fromkeys(_routers(converted.constants, graph))
    with quiet(), quick_passes():
        config = coreml.OptimizationConfig(global_config=_how(coreml, weights), op_name_configs=kept)
        how = coreml.palettize_weights if weights in PALETTES else coreml.linear_quantize_weights
        return how(converted.model, config)


def _how(coreml: Any, weights: Weights) -> Any:  # coremltools.optimize.coreml and one of its configurations
    if weights in PALETTES:
        return coreml.OpPalettizerConfig(mode="kmeans", nbits=PALETTES[weights])
    if weights == "int4":
        return coreml.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=BLOCK
        )
    return coreml.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")


def _routers(constants: Mapping[str, Array], graph: StaticMoRViT) -> list[str]:
    """Names of the constants that routers read: routing decisions keep their precision."""
    keys = {_key(parameter.numpy()) for parameter in graph.routers.parameters() if parameter.ndim > 1}
    return [name for name, held in constants.items() if _key(held) in keys]


def _key(weight: Array) -> tuple[bytes, ...]:
    """The same for a weight and its transpose, in either precision."""
    half = np.squeeze(weight).astype(np.float16)
    return tuple(sorted((half.tobytes(), half.T.tobytes())))
