"""Reading of a safetensors file. The library keeps the last of two tensors with one name; here both are refused."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.strict_json import parse_json


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, and its metadata.

    Raises CheckpointError for a header with equal names. SafetensorError, OSError and ValueError are left to the
    caller: its message depends on what the file should be.
    """
    with safe_open(path, framework="pt") as file:
        _check_header(path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        return tensors, file.metadata() or {}


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")  # safe_open has checked it
        header = file.read(length)
    parse_json(
        header,
        path,
        CheckpointError,
        what="a safetensors file with a sound header",
        advice="save it again from your training code",
    )
