"""File names of weights, and whether a path is a checkpoint of another library. No torch."""

from __future__ import annotations

import json
from pathlib import Path

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")  # preferred names of an unsharded checkpoint
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"


def is_foreign(path: Path) -> bool:
    """Whether a path needs conversion. Folders that are morvit/1, damaged or empty are left to its own loader."""
    if not path.is_dir():
        return path.is_file() and path.name != CONFIG
    try:
        files = [file for file in path.iterdir() if file.is_file()]
        if not any(file.name in INDEXES or file.suffix in SUFFIXES for file in files):
            return False
        config = json.loads((path / CONFIG).read_bytes())
    except OSError:
        return True
    except ValueError:
        return False
    ours = isinstance(config, dict) and str(config.get("format", "")).startswith("morvit/")
    return not (ours and (path / WHOLE[0]).exists())
