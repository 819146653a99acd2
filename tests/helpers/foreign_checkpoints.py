"""Checkpoints by other code's names, small and seeded, without that code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from morvit_deploy.sources.settings.given import Given
from morvit_deploy.sources.tensors.reading import Contents

DIM, HEADS, MLP, PATCH, GRID, CLASSES = 8, 2, 12, 4, 4, 5
SIZE = PATCH * GRID
SAID: dict[str, Any] = {
    "preprocess": "imagenet", "norm_eps": 1e-6, "num_heads": HEADS, "activation": "gelu", "pooling": "cls",
    "image_size": SIZE,
}  # fmt: skip
SAY = (
    *("--preprocess", "imagenet", "--pooling", "cls", "--image-size", str(SIZE)),
    *("--norm-eps", "1e-6", "--num-heads", str(HEADS), "--activation", "gelu"),
)
BLOCK = {
    "norm1.weight": (DIM,), "norm1.bias": (DIM,), "attn.qkv.weight": (3 * DIM, DIM), "attn.qkv.bias": (3 * DIM,),
    "attn.proj.weight": (DIM, DIM), "attn.proj.bias": (DIM,), "norm2.weight": (DIM,), "norm2.bias": (DIM,),
    "mlp.fc1.weight": (MLP, DIM), "mlp.fc1.bias": (MLP,), "mlp.fc2.weight": (DIM, MLP), "mlp.fc2.bias": (DIM,),
}  # fmt: skip  # a block of shapes
ENDS = {
    "patch_embed.proj.weight": (DIM, 3, PATCH, PATCH), "patch_embed.proj.bias": (DIM,), "cls_token": (1, 1, DIM),
    "pos_embed": (1, GRID * GRID + 1, DIM), "norm.weight": (DIM,), "norm.bias": (DIM,),
    "head.weight": (CLASSES, DIM), "head.bias": (CLASSES,),
}  # fmt: skip


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Tensors of these shapes, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def block(seed: int) -> dict[str, Tensor]:
    """One block's tensors by their names in it."""
    return drawn(BLOCK, seed)


def vit(layers: str = "abc") -> dict[str, Tensor]:
    """A plain ViT by timm's names; layers with the same letter are the same block."""
    tensors = drawn(ENDS, 0)
    for i, letter in enumerate(layers):
        tensors |= {f"blocks.{i}.{name}": tensor for name, tensor in block(ord(letter)).items()}
    return tensors


def saved(content: object, path: Path, legacy: bool = False) -> Path:
    """`torch.save`, in the zip format or the one before it."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def contents(tensors: dict[str, Tensor], **fields: Any) -> Contents:
    """Tensors as if they had been read from a file."""
    return Contents(path=Path("model.pth"), tensors=tensors, files={"model.pth": "0"}, **fields)


def said(**changes: Any) -> Given:
    """What a user says of `vit`, and more."""
    return Given(**{name: value for name, value in (SAID | changes).items() if value is not None})
