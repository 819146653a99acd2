"""The table of operations, only those that exported packages use.

`tests/exporters/coreml/mil/test_operations.py` exports packages and compares their operations with the table.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from morvit_deploy.exporters.coreml.mil import ops_numbers as numbers
from morvit_deploy.exporters.coreml.mil import ops_places as places
from morvit_deploy.exporters.coreml.mil.ops import Evaluator, Result, evaluator

_OF_ONE = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
_OF_TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{"add": torch.add, "sub": torch.sub, "mul": torch.mul, "equal": torch.eq},
    **{"greater": torch.gt, "greater_equal": torch.ge},
    **{"logical_and": torch.logical_and, "logical_or": torch.logical_or},
}
_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    **{
        "reduce_sum": torch.sum,
        "reduce_mean": torch.mean,
        "reduce_max": torch.amax,
        "reduce_min": torch.amin,
    },
}
_NUMBERS: dict[str, Callable[..., Result]] = {
    **{"select": numbers.select, "cast": numbers.cast, "gelu": numbers.gelu},
    **{"linear": numbers.linear, "matmul": numbers.matmul, "einsum": numbers.einsum, "conv": numbers.conv},
    "scaled_dot_product_attention": numbers.attention,
    **{"softmax": numbers.softmax, "layer_norm": numbers.layer_norm},
    **{"topk": places.topk, "argsort": places.argsort, "classify": places.classify},
    **{"reduce_argmax": places.argmax, "reduce_argmin": places.argmin},
}
_MOVES: dict[str, Callable[..., Result]] = {
    **{"reshape": places.reshape, "transpose": places.transpose, "expand_dims": places.expand_dims},
    **{"tile": places.tile, "gather": places.gather},
    **{"concat": places.concat, "split": places.split, "slice_by_index": places.slice_by_index},
}
OPERATIONS: dict[str, Evaluator] = {
    **{name: evaluator(numbers.of_one(function)) for name, function in _OF_ONE.items()},
    **{name: evaluator(numbers.of_two(function)) for name, function in _OF_TWO.items()},
    **{name: evaluator(numbers.reduction(function)) for name, function in _REDUCTIONS.items()},
    **{name: evaluator(function) for name, function in _NUMBERS.items()},
    **{name: evaluator(function, moves=True) for name, function in _MOVES.items()},
}
