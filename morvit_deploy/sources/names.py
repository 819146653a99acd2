"""File names by which weights are found. No torch."""

from __future__ import annotations

from pathlib import Path

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")  # the names that libraries look for first
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"


def holds_weights(folder: Path) -> bool:
    """Is there a file of weights, or an index of shards, in a folder?"""
    return any(path.name in INDEXES or path.suffix in SUFFIXES for path in folder.iterdir() if path.is_file())
