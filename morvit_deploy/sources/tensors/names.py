"""File names by which weights are found, and whether they are ours. No torch."""

from __future__ import annotations

import json
from pathlib import Path

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")  # the names that libraries look for first
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"


def holds_weights(folder: Path) -> bool:
    """Is there a file of weights, or an index of shards, in a folder?"""
    return any(path.name in INDEXES or path.suffix in SUFFIXES for path in folder.iterdir() if path.is_file())


def is_foreign(path: Path) -> bool:
    """Is this something to convert? What claims to be ours, is broken or empty is left to our own loader."""
    if not path.is_dir():
        return path.is_file() and path.name != CONFIG
    try:
        if not holds_weights(path):
            return False
        config = json.loads((path / CONFIG).read_bytes())
    except OSError:
        return True
    except ValueError:
        return False
    ours = isinstance(config, dict) and str(config.get("format", "")).startswith("morvit/")
    return not (ours and (path / WHOLE[0]).exists())
