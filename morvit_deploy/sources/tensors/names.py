"""File names of weights, and whether a path is a checkpoint of another library. No torch."""

from __future__ import annotations

import os
from pathlib import Path

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.files import check_utf8
from morvit_deploy.strict_json import read_json

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")  # preferred names of an unsharded checkpoint
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".pt.tar")
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"


def check_exists(path: Path) -> None:
    """Raise CheckpointError for a path to nothing, or one that libraries cannot open."""
    check_utf8(path, CheckpointError)
    if not os.path.exists(path):  # noqa: PTH110  # False for a name that is too long, too
        raise CheckpointError(f"{path} does not exist; give a file of weights or the folder that holds it")


def is_weights(name: str) -> bool:
    """Whether a file of this name holds weights; upper case counts too."""
    return name.lower().endswith(SUFFIXES)


def is_foreign(path: Path) -> bool:
    """Whether a path needs conversion. Folders that are native, damaged or empty are left to its own loader."""
    if not path.is_dir():
        return path.is_file() and path.name != CONFIG
    try:
        files = [file for file in path.iterdir() if file.is_file()]
        if not any(file.name in INDEXES or is_weights(file.name) for file in files):
            return False
        config = read_json(path / CONFIG)
    except OSError:
        return True
    except ConfigError:
        return False
    ours = isinstance(config, dict) and str(config.get("format", "")).startswith("morvit/")
    return not (ours and (path / WHOLE[0]).exists())
