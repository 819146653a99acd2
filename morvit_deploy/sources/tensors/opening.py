"""Opening of a weights file, safetensors or PyTorch; objects other than tensors are never unpickled."""

from __future__ import annotations

import argparse
import re
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.model.checkpoint import LFS, read_safetensors
from morvit_deploy.sources.tensors.numpy_objects import READABLE
from morvit_deploy.sources.tensors.unwrapping import Unwrapped, unwrap
from morvit_deploy.sources.tensors.values import check_values

HEAD = 4096  # bytes from which the format of a file is detected
ZIP = b"PK\x03\x04"
MAX_HEADER = 100_000_000  # bytes of a safetensors header, the limit of its library


def open_weights(path: Path, ema: bool, entry: str | None = None) -> Unwrapped:
    """Read the tensors of a file in any supported format.

    Raises CheckpointError if it is not a file of weights, has no such `entry`, or has tensors without values.
    """
    opened = unwrap(_content(path), path, ema, entry)
    check_values(opened.tensors, path)
    return opened


def _content(path: Path) -> Any:
    """Return what a file contains; only tensors, plain containers and numbers are read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    size = path.stat().st_size
    if not size:
        raise CheckpointError(f"{path} is empty; copy it again")
    if _has_safetensors_header(head):
        return _safetensors(path, size)
    if head.startswith(LFS):
        promised = re.search(rb"^size (\d+)", head, re.M)
        stated = f" of {int(promised[1]):,} bytes" if promised else ""
        raise CheckpointError(
            f"{path} is a Git LFS pointer to a file{stated}, not the weights; run `git lfs pull` where you cloned it"
        )
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(f"{path} is a web page, not weights; download the file itself")
    if head.lstrip().startswith(b"{"):
        raise CheckpointError(f"{path} is a JSON file, not weights; give the folder that holds it")
    if head.startswith(ZIP):
        _check_archive(path, size)
    if head.startswith((ZIP, b"\x80")):
        return _unpickle(path, size)
    return _safetensors(path, size)


# what zipfile raises for damage; a name that is not UTF-8 is a UnicodeDecodeError, a wild offset a ValueError
DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
    zlib.error,
    struct.error,
)


def _check_archive(path: Path, size: int) -> None:
    """Raise CheckpointError for a damaged zip archive or one of NumPy; torch.load tests no checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, [member.filename for member in members])
            has_checksums = any(member.CRC for member in members)  # not with set_crc32_options(False)
            damaged = archive.testzip() if has_checksums else None
    except (*DAMAGE, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} ({size:,} bytes) is a truncated or damaged zip file ({error}); copy it again"
        ) from None
    if damaged is not None:
        raise CheckpointError(
            f"{path} ({size:,} bytes) is damaged: {damaged} differs from its checksum in the file; copy it again"
        )


def _check_members(path: Path, names: Sequence[str]) -> None:
    if any(name.endswith(".npy") for name in names):
        raise CheckpointError(
            f"{path} is a NumPy archive, the format of JAX's ViTs; load it with timm (create_model with "
            "checkpoint_path), then torch.save(model.state_dict(), PATH)"
        )
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise CheckpointError(
            f"{path} contains {twice[0]} twice, expected each entry once; save it again from your training code"
        )


def _has_safetensors_header(head: bytes) -> bool:
    """Whether a file begins with an 8-byte length and a JSON object.

    Checked first, because the length can begin with the first byte of any other format.
    """
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


def _safetensors(path: Path, size: int) -> dict[str, Tensor]:
    try:
        tensors, aliases = read_safetensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} ({size:,} bytes) is neither a complete safetensors file nor a PyTorch file: {error}; copy it "
            "again"
        ) from None
    # `safetensors.torch.save_model` writes a shared tensor once and its other names as metadata
    return {name: tensors[kept] for name, kept in aliases.items() if kept in tensors} | tensors


def _unpickle(path: Path, size: int) -> Any:
    """Load tensors, plain containers, `argparse.Namespace` (of DeiT) and NumPy's numbers with torch.load."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *READABLE]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle raise many types for a damaged file
        raise CheckpointError(_why_not_loaded(path, size, str(error) or type(error).__name__)) from None


def _why_not_loaded(path: Path, size: int, message: str) -> str:
    """Return a message for torch.load's error, whose own advice is to disable the protection."""
    alone = "Save only the tensors: torch.save(model.state_dict(), PATH)"
    foreign = re.search(r"GLOBAL (\S+)", message)
    if foreign:
        return (
            f"{path} contains Python objects ({foreign[1]}); it was not loaded, because that would run code from the "
            f"file. {alone}"
        )
    if "NumPy value" in message:
        return f"{path} contains an object that is not read: {message}. {alone}"
    if "TorchScript" in message:
        return f"{path} is a TorchScript program, not a dictionary of tensors. {alone}"
    if "Unsupported oper" in message:  # operand, operation
        return (
            f"{path} is a pickle, but not of a dictionary of tensors; it was not loaded, because that would run code "
            f"from the file. {alone}"
        )
    reason = message.split("WeightsUnpickler error:")[-1].strip().splitlines()[0]
    reason = "its pickle is truncated" if "weights_only" in reason else reason
    return f"{path} ({size:,} bytes) is not a complete PyTorch file: {reason}; copy it again"
