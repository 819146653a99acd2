"""Reading of a checkpoint: a file, shards or a folder, with the JSON files next to the weights."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.files import is_ours
from morvit_deploy.model.checkpoint import LFS
from morvit_deploy.sources.settings.arguments import Arguments
from morvit_deploy.sources.tensors.names import (
    CONFIG,
    INDEXES,
    PROCESSOR,
    SUFFIXES,
    WHOLE,
    check_exists,
    is_weights,
)
from morvit_deploy.sources.tensors.opening import open_weights
from morvit_deploy.sources.tensors.prefixes import bare
from morvit_deploy.sources.tensors.unwrapping import Unwrapped
from morvit_deploy.strict_json import read_object

SHARD = re.compile(r"-\d+-of-\d+(\.\w+)+$")
SHOWN = 6  # names that a message lists
BESIDE = "copy it again, or remove it if it belongs to another checkpoint"


@dataclass(frozen=True)
class Contents:
    """The tensors and JSON files of a checkpoint, and how the tensors were stored."""

    path: Path
    tensors: dict[str, Tensor]
    files: dict[str, str]  # name -> sha256
    config: dict[str, Any] | None = None
    processor: dict[str, Any] | None = None
    wrapper: str | None = None  # the entry of a training file that contained the tensors
    prefix: str = ""  # removed from every key
    dropped: dict[str, str] = field(default_factory=dict)  # entry that is not a tensor of the model -> why
    arguments: Arguments = field(default_factory=Arguments)  # of the training script


def read_source(
    path: Path, *, ema: bool = True, entry: str | None = None, prefix: str | None = None
) -> Contents:
    """Read a file or a folder; with `ema`, averaged weights are preferred to trained ones.

    `entry` names the state dict to use in a training file, and `prefix` the module inside it. Raises CheckpointError
    if files are missing, damaged or not weights, if they contain other objects, or if entry or prefix do not exist.
    """
    check_exists(path)
    if not path.is_file() and not path.is_dir():
        raise CheckpointError(
            f"{path} is neither a file nor a folder; give a file of weights or the folder that holds it"
        )
    if path.is_dir() and is_ours(path / "manifest.json"):
        raise CheckpointError(f"{path} is a bundle; give the checkpoint that it was exported from")
    folder = path if path.is_dir() else path.parent
    weights = _shards(path) if path.is_dir() or path.name in INDEXES else {path.name: None}
    packed = [open_weights(folder / name, ema, entry) for name in weights]
    found = bare(_joined(folder, weights, packed), path, prefix)
    beside = [name for name in (CONFIG, PROCESSOR) if (folder / name).is_file()]
    return Contents(
        path=path,
        tensors=found.tensors,
        files={name: _sha256(folder / name) for name in [*beside, *weights]},
        config=_fields(folder / CONFIG) if CONFIG in beside else None,
        processor=_fields(folder / PROCESSOR) if PROCESSOR in beside else None,
        wrapper=packed[0].wrapper,
        prefix=found.prefix,
        dropped={name: why for one in packed for name, why in one.dropped.items()} | found.dropped,
        arguments=Arguments({name: held for one in packed for name, held in one.arguments.items()}),
    )


def _shards(path: Path) -> Mapping[str, list[str] | None]:
    """Return the weight files of a folder or an index, each with its keys according to the index."""
    folder = path if path.is_dir() else path.parent
    indexes = [name for name in INDEXES if (folder / name).is_file()] if path.is_dir() else [path.name]
    named = [name for name in WHOLE if (folder / name).is_file()] if path.is_dir() else []
    if indexes:
        placed = _indexed(folder, indexes[0])
        if stale := [name for name in named if name not in placed]:
            raise CheckpointError(
                f"{folder} contains {stale[0]} and {indexes[0]}, an index of other files; give one of the two files"
            )
        return placed
    if named:
        return {named[0]: None}
    found = sorted(p.name for p in folder.iterdir() if p.is_file() and is_weights(p.name))
    if len(found) == 1 and not SHARD.search(found[0]):
        return {found[0]: None}
    if any(SHARD.search(name) for name in found):
        raise CheckpointError(
            f"{folder} contains shards ({_some(found)}) without their index, {' or '.join(INDEXES)}; copy it too"
        )
    if found:
        raise CheckpointError(
            f"{folder} contains {len(found)} files of weights: {_some(found)}; give one of the files"
        )
    raise CheckpointError(
        f"{folder} contains no weights; expected a file that ends in {', '.join(SUFFIXES)}, or an index of shards"
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
                f"{folder / index}: got {name!r}, expected the name of a file in the same folder"
            )
        keys[name].append(key)
    absent = [name for name in keys if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{folder / index} lists {len(keys)} shards, of which {len(absent)} are missing: {_some(absent)}; copy "
            "them too"
        )
    return dict(sorted(keys.items()))


def _joined(
    folder: Path, weights: Mapping[str, list[str] | None], packed: list[Unwrapped]
) -> dict[str, Tensor]:
    """Merge the tensors of all shards; CheckpointError if a shard lacks a tensor that the index lists."""
    tensors: dict[str, Tensor] = {}
    for (name, promised), one in zip(weights.items(), packed, strict=True):
        lacking = [key for key in promised or [] if key not in one.tensors]
        if lacking:
            raise CheckpointError(
                f"{folder / name} lacks {len(lacking)} tensors that the index lists: {_some(lacking)}; copy it again"
            )
        twice = sorted(tensors.keys() & one.tensors.keys())
        if twice:
            raise CheckpointError(f"{folder / name} contains tensors of another shard too: {_some(twice)}")
        tensors |= one.tensors
    return tensors


def _fields(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        with path.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                raise CheckpointError(f"{path} is a Git LFS pointer; run `git lfs pull` where you cloned it")
        return read_object(path, CheckpointError, advice=BESIDE)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
