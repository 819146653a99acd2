"""Opens what a user points at: one file, shards, or a folder; tensors only, and no object is ever unpickled."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from morvit_deploy.checkpoint import LFS
from morvit_deploy.errors import CheckpointError
from morvit_deploy.files import is_ours
from morvit_deploy.sources.names import CONFIG, INDEXES, PROCESSOR, SUFFIXES, WHOLE
from morvit_deploy.sources.unwrapping import Unwrapped, unwrap, without_prefixes

HEAD = 4096  # bytes by which a file's kind is told
SHARD = re.compile(r"-\d+-of-\d+\.\w+$")
ZIP = b"PK\x03\x04"
MAX_HEADER = 100_000_000  # bytes of a safetensors header, by its own library


@dataclass(frozen=True)
class Contents:
    """What was found: tensors by name, the JSON files beside them, and how they were packed."""

    path: Path
    tensors: dict[str, Tensor]
    files: dict[str, str]  # name -> sha256
    config: dict[str, Any] | None = None
    processor: dict[str, Any] | None = None
    wrapper: str | None = None  # the entry of a training file that held the tensors
    prefix: str = ""  # that every key carried
    dropped: dict[str, str] = field(default_factory=dict)  # what is no tensor of the model -> by which rule


def read_source(path: Path, *, ema: bool = True) -> Contents:
    """Read a file or a folder; `ema` false takes the trained weights where a file also has averaged ones.

    Raises CheckpointError for what is missing, cut short, no file of weights, or more than tensors.
    """
    if not path.is_file() and not path.is_dir():
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}; give a file of weights or the folder that holds it")
    if path.is_dir() and is_ours(path / "manifest.json"):
        raise CheckpointError(f"{path} is a bundle; give the checkpoint that it was made from")
    folder = path if path.is_dir() else path.parent
    weights = _shards(path) if path.is_dir() or path.name in INDEXES else {path.name: None}
    packed = [_read(folder / name, ema) for name in weights]
    tensors, prefix = without_prefixes(_joined(folder, weights, packed))
    beside = [name for name in (CONFIG, PROCESSOR) if (folder / name).is_file()]
    return Contents(
        path=path,
        tensors=tensors,
        files={name: _sha256(folder / name) for name in [*beside, *weights]},
        config=_fields(folder / CONFIG) if CONFIG in beside else None,
        processor=_fields(folder / PROCESSOR) if PROCESSOR in beside else None,
        wrapper=packed[0].wrapper,
        prefix=prefix,
        dropped={name: why for one in packed for name, why in one.dropped.items()},
    )


def _shards(path: Path) -> Mapping[str, list[str] | None]:
    """The files of weights in a folder, or of an index, each with the keys that the index promises."""
    folder = path if path.is_dir() else path.parent
    indexes = [name for name in INDEXES if (folder / name).is_file()] if path.is_dir() else [path.name]
    named = [name for name in WHOLE if (folder / name).is_file()] if path.is_dir() else []
    if indexes:
        placed = _indexed(folder, indexes[0])
        if stale := [name for name in named if name not in placed]:
            raise CheckpointError(
                f"{folder} holds {stale[0]} and {indexes[0]}, an index of other files; name the one you want"
            )
        return placed
    if named:
        return {named[0]: None}
    found = sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix in SUFFIXES)
    if len(found) == 1 and not SHARD.search(found[0]):
        return {found[0]: None}
    if any(SHARD.search(name) for name in found):
        raise CheckpointError(
            f"{folder} holds shards ({_some(found)}) without their index, {' or '.join(INDEXES)}; copy it, too"
        )
    if found:
        raise CheckpointError(
            f"{folder} holds {len(found)} files of weights: {_some(found)}; name one of them"
        )
    raise CheckpointError(
        f"{folder} holds no weights; expected one file that ends in {', '.join(SUFFIXES)}, or an index of shards"
    )


def _indexed(folder: Path, index: str) -> Mapping[str, list[str] | None]:
    placed = _fields(folder / index).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(v, str) for v in placed.values()):
        raise CheckpointError(
            f"{folder / index} has no weight_map from tensor to file; copy the folder again"
        )
    keys: dict[str, list[str]] = defaultdict(list)
    for key, name in placed.items():
        if Path(name).name != name or "\\" in name:
            raise CheckpointError(
                f"{folder / index} names {name!r}, expected the name of a file beside it; an index that leaves its "
                "folder is not read"
            )
        keys[name].append(key)
    absent = [name for name in keys if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{folder / index} names {len(keys)} shards, and {len(absent)} are missing: {_some(absent)}; copy them, "
            "too"
        )
    return dict(sorted(keys.items()))


def _joined(
    folder: Path, weights: Mapping[str, list[str] | None], packed: list[Unwrapped]
) -> dict[str, Tensor]:
    """All shards' tensors in one dictionary; CheckpointError when a shard lacks a tensor that the index promises."""
    tensors: dict[str, Tensor] = {}
    for (name, promised), one in zip(weights.items(), packed, strict=True):
        lacking = [key for key in promised or [] if key not in one.tensors]
        if lacking:
            raise CheckpointError(
                f"{folder / name} lacks {len(lacking)} tensors that the index promises: {_some(lacking)}; copy it "
                "again"
            )
        twice = sorted(tensors.keys() & one.tensors.keys())
        if twice:
            raise CheckpointError(f"{folder / name} repeats tensors of another shard: {_some(twice)}")
        tensors |= one.tensors
    return tensors


def _read(path: Path, ema: bool) -> Unwrapped:
    """One file's tensors, whatever its kind."""
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
        told = f" of {int(promised[1]):,} bytes" if promised else ""
        raise CheckpointError(
            f"{path} is a Git LFS pointer to a file{told}, not the weights; run `git lfs pull` where you cloned it"
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
    """A length of eight bytes and a JSON object. Told first: the length can begin with any kind's first byte."""
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
            warnings.simplefilter("ignore")  # of pickle protocols; what follows says what matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle raise many kinds on a damaged file
        raise CheckpointError(_why_not_loaded(path, size, str(error) or type(error).__name__)) from None


def _why_not_loaded(path: Path, size: int, told: str) -> str:
    """torch.load's error in our words: its own advice is to load the file without the guard."""
    alone = "Save the tensors alone: torch.save(model.state_dict(), PATH)"
    foreign = re.search(r"GLOBAL (\S+)", told)
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
    if "TorchScript" in told:
        return f"{path} is a TorchScript program, not a dictionary of tensors. {alone}"
    if "Unsupported oper" in told:  # operand, operation
        return (
            f"{path} is a pickle of something else than a dictionary of tensors; it was not loaded, since that would "
            f"run code from the file. {alone}"
        )
    reason = told.split("WeightsUnpickler error:")[-1].strip().splitlines()[0]
    reason = "its pickle breaks off" if "weights_only" in reason else reason
    return f"{path} ({size:,} bytes) is not a whole PyTorch file: {reason}; copy it again"


def _fields(path: Path) -> dict[str, Any]:
    """A JSON file's object."""
    try:
        text = path.read_bytes()
        if text.startswith(LFS):
            raise CheckpointError(f"{path} is a Git LFS pointer; run `git lfs pull` where you cloned it")
        found = json.loads(text)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a JSON file: {error}; copy it again, or take it away if it is not this checkpoint's"
        ) from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, expected a JSON object; copy it again")
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _some(names: list[str], shown: int = 6) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
