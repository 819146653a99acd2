"""One file of weights, whatever its kind: safetensors or PyTorch's own; no object in it is ever unpickled."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.model.checkpoint import LFS
from morvit_deploy.sources.tensors.unwrapping import Unwrapped, unwrap

HEAD = 4096  # bytes from which a file's kind is detected
ZIP = b"PK\x03\x04"
MAX_HEADER = 100_000_000  # bytes of a safetensors header, by its own library


def open_weights(path: Path, ema: bool) -> Unwrapped:
    """One file's tensors, whatever its kind; CheckpointError when it holds none, or more."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    size = path.stat().st_size
    if not size:
        raise CheckpointError(f"{path} is empty; copy it again")
    if _has_safetensors_header(head):
        return unwrap(_safetensors(path, size), path, ema)
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
    if head.startswith(ZIP) and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} ({size:,} bytes) is a PyTorch file that was cut short; copy it again")
    if head.startswith((ZIP, b"\x80")):
        return unwrap(_unpickle(path, size), path, ema)
    return unwrap(_safetensors(path, size), path, ema)


def _has_safetensors_header(head: bytes) -> bool:
    """A length of eight bytes and a JSON object. Checked first: the length can begin with any kind's first byte."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


def _safetensors(path: Path, size: int) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            aliases = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} ({size:,} bytes) is neither a whole safetensors file nor a PyTorch file: {error}; copy it again"
        ) from None
    # `safetensors.torch.save_model` writes a shared tensor once and the other names beside it
    return {name: tensors[kept] for name, kept in aliases.items() if kept in tensors} | tensors


def _unpickle(path: Path, size: int) -> Any:
    """torch.load of tensors and plain containers; an `argparse.Namespace`, as DeiT saves it, is the one exception."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what follows reports what matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle raise many kinds on a damaged file
        raise CheckpointError(_why_not_loaded(path, size, str(error) or type(error).__name__)) from None


def _why_not_loaded(path: Path, size: int, message: str) -> str:
    """torch.load's error in our words: its own advice is to load the file without the guard."""
    alone = "Save the tensors alone: torch.save(model.state_dict(), PATH)"
    foreign = re.search(r"GLOBAL (\S+)", message)
    if foreign:
        return (
            f"{path} holds Python objects besides tensors ({foreign[1]}); it was not loaded, since that would run "
            f"code from the file. {alone}"
        )
    if path.suffix == ".npz":
        return (
            f"{path} is a NumPy archive, as JAX's ViTs are saved in; let timm load it (create_model with "
            "checkpoint_path), then torch.save(model.state_dict(), PATH)"
        )
    if "TorchScript" in message:
        return f"{path} is a TorchScript program, not a dictionary of tensors. {alone}"
    if "Unsupported oper" in message:  # operand, operation
        return (
            f"{path} is a pickle of something else than a dictionary of tensors; it was not loaded, since that would "
            f"run code from the file. {alone}"
        )
    reason = message.split("WeightsUnpickler error:")[-1].strip().splitlines()[0]
    reason = "its pickle breaks off" if "weights_only" in reason else reason
    return f"{path} ({size:,} bytes) is not a whole PyTorch file: {reason}; copy it again"
