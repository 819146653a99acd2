"""Tensors whose values are not in the file, or not in the form of a plain array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError, listed
from morvit_deploy.report import size

SHOWN = 12  # tensors that a message lists
SMALL = 1 << 24  # bytes that an expanded tensor may take when its values are written out


def check_values(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError that lists the tensors without plain values."""
    problems = [f"{name}: {why}" for name, tensor in tensors.items() if (why := _unreadable(tensor))]
    if problems:
        raise CheckpointError(
            f"{path} has {len(problems)} tensors (of {len(tensors)}) that cannot be read as plain arrays:\n"
            f"{listed(problems, SHOWN)}\nload the model in your training code, and save it again with plain tensors"
        )


def _unreadable(tensor: Tensor) -> str:
    """Return why a tensor has no plain values; empty if it has."""
    if tensor.is_meta:
        return "on device meta: it has a shape and no values, expected values; load the weights before saving"
    if tensor.is_nested:
        return "nested, expected one rectangular array"
    if tensor.layout != torch.strided:
        return f"{str(tensor.layout).removeprefix('torch.')}, expected a dense tensor; use tensor.to_dense()"
    if tensor.is_quantized:
        return (
            f"{str(tensor.dtype).removeprefix('torch.')}, expected float values; dequantise it first: "
            "tensor.dequantize()"
        )
    spread, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if spread > max(held, SMALL):
        return (
            f"expanded to {list(tensor.shape)}, which would take {size(spread)}, expected at most the {size(held)} "
            "that the file holds of it"
        )
    return ""
