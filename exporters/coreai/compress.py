"""Compresses the weights of a saved Core AI asset with coreai-opt; routers keep their precision."""

from __future__ import annotations

import logging
import math
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreai.convert import quiet
from morvit_deploy.exporters.coreai.names import PALETTES, Weights
from morvit_deploy.exporters.coreai.printed.asset import open_asset
from morvit_deploy.exporters.coreai.printed.probes import Values, renumbered
from morvit_deploy.exporters.coreai.printed.program import CONSTANT, ProgramText, read_program
from morvit_deploy.exporters.coreai.runtime import native_quiet
from morvit_deploy.exporters.functions.weights import content_key, weight_of, weights_of
from morvit_deploy.exporters.replacing import replacing
from morvit_deploy.graph.unroll import StaticMoRViT

BLOCK = 32  # int4: inputs that share a scale, as in a Core ML package
# Weights of more elements are compressed. Below 10,000 coreai-opt's k-means is scikit-learn's, which stops early.
SMALL: dict[Weights, int] = {"int8": 1024, "int4": 1024, **dict.fromkeys(PALETTES, 10_000)}


@dataclass(frozen=True)
class Compressed:
    """What compression changed besides the weights."""

    inside: dict[str, Values]  # the probes' values, under the numbers that they have now
    remarks: tuple[str, ...]


def compress(asset: Path, weights: Weights, graph: StaticMoRViT, inside: Mapping[str, Values]) -> Compressed:
    """Compress the large weights of an asset in place; TargetError where coreai-opt leaves one in float."""
    program, plain = open_asset(asset).program, read_program(asset)
    _keep(program, plain, _routers(graph))
    with _reasons() as reasons, quoted_libraries():
        compressed = _how(weights)(program)
    if weights in PALETTES and reasons:
        raise TargetError(
            f"coreai-opt left a weight in float: {' '.join(reasons[-1].split())[:300]}. Palettes require a C++ "
            "compiler; install one, or export with weights int8"
        )
    small = asset.with_name(f"compressed-{asset.name}")
    with quiet():
        compressed.save_asset(small)
    shutil.rmtree(asset)
    small.rename(asset)
    left = kept_in_float(graph, weights)
    remark = f"weights of an input that {BLOCK} does not divide stay in float: {', '.join(left)}"
    return Compressed(renumbered(inside, plain, read_program(asset)), (remark,) if left else ())


@contextmanager
def quoted_libraries() -> Iterator[None]:
    """coreai-opt has PyTorch build its k-means, and PyTorch names its libraries to the shell as they are.

    A space in the path of the environment would end the argument.
    """
    from torch.utils import cpp_extension

    with replacing((cpp_extension, "TORCH_LIB_PATH", shlex.quote)):
        yield


def is_compressed(shape: tuple[int, ...], weights: Weights) -> bool:
    """Is a weight, which is no router's, stored in fewer bits?"""
    return weights != "float" and _is_large(shape, weights) and not _is_ragged(shape, weights)


def scales_of(shape: tuple[int, ...], weights: Weights) -> int:
    """How many scales a quantized weight (in, out), or (out, in, …) of a convolution, has."""
    inputs, outputs = shape[:2] if len(shape) == 2 else (shape[1], shape[0])
    return outputs * inputs // BLOCK if weights == "int4" else outputs


def kept_in_float(graph: StaticMoRViT, weights: Weights) -> list[str]:
    """The large weights that are not compressed because blocks do not divide them."""
    shapes = {name: tuple(weight_of(module).shape) for name, module in weights_of(graph).items()}
    return [
        name for name, shape in shapes.items() if _is_large(shape, weights) and _is_ragged(shape, weights)
    ]


def router_names(graph: StaticMoRViT) -> set[str]:
    """The weights of `weights_of` that routers multiply by."""
    held = {id(parameter) for parameter in _routers(graph)}
    return {name for name, module in weights_of(graph).items() if id(weight_of(module)) in held}


def _is_large(shape: tuple[int, ...], weights: Weights) -> bool:
    return math.prod(shape) > SMALL[weights]


def _is_ragged(shape: tuple[int, ...], weights: Weights) -> bool:
    inputs = shape[0] if len(shape) == 2 else shape[1]
    return weights == "int4" and inputs % BLOCK != 0


def _routers(graph: StaticMoRViT) -> list[Tensor]:
    return [parameter for parameter in graph.routers.parameters() if parameter.ndim > 1]


def _how(weights: Weights) -> Callable[[Any], Any]:  # from a coreai.authoring.AIProgram to another
    with quiet(), native_quiet():  # torchao writes to both while it is imported
        from coreai_opt import coreai_utils as opt
    if weights in PALETTES:
        bits: dict[str, Any] = {"lut_dtype": None, "n_bits": PALETTES[weights], "num_kmeans_workers": 1}
        return partial(opt.palettize_weights, **bits, weight_num_threshold=SMALL[weights])
    by = opt.CompressionGranularity
    how: dict[str, Any] = {"dtype": opt.DType.INT8, "granularity": by.PER_CHANNEL}
    if weights == "int4":
        how = {"dtype": opt.DType.INT4, "granularity": by.PER_BLOCK, "block_size": BLOCK}
    return partial(opt.quantize_weights, **how, weight_num_threshold=SMALL[weights])


def _keep(program: Any, text: ProgramText, routers: Iterable[Tensor]) -> None:
    """Give the routers' constants a further use that coreai-opt knows no compression for; saving drops it."""
    from coreai._compiler.ir import InsertionPoint
    from coreai.authoring import cast

    keys = {content_key(parameter.numpy()) for parameter in routers}
    written = [op for graph in text.graphs.values() for op in graph.operations if op.kind == CONSTANT]
    for constant, read in zip(_constants(program), written, strict=True):
        (kind,) = read.makes
        if kind.dtype.startswith("f") and len(kind.sizes) > 1 and content_key(text.array(read)) in keys:
            with constant.context, constant.location, InsertionPoint.after(constant):
                cast(constant.result, constant.result.type)


def _constants(program: Any) -> list[Any]:
    """Core AI's own objects, in the order in which they are printed."""
    from coreai._compiler.ir import WalkResult

    found: list[Any] = []

    def see(operation: Any) -> Any:
        if operation.name == f"coreai.{CONSTANT}":
            found.append(operation)
        return WalkResult.ADVANCE

    program._module._mlir_module.operation.walk(see)
    return found


@contextmanager
def _reasons() -> Iterator[list[str]]:
    """Collect why coreai-opt skips a weight: it only logs that."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    log, collect = logging.getLogger("coreai_opt"), Collect(logging.WARNING)
    propagated = log.propagate
    log.addHandler(collect)
    log.propagate = False
    try:
        with quiet():
            yield found
    finally:
        log.removeHandler(collect)
        log.propagate = propagated
