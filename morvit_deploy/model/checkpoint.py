"""Checkpoints of format `morvit/1` or `morvit/2`: a folder with `config.json` and `model.safetensors`.

Loading is strict: missing and unexpected tensors are errors.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from morvit_deploy.errors import CheckpointError, OutputError, listed
from morvit_deploy.files import check_utf8, make_readable, new_folder
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.model.config import Config, checked, load_config
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.strict_json import parse_json

WEIGHTS = "model.safetensors"
LFS = b"version https://git-lfs"  # first bytes of a pointer file
WIDENED = (torch.float16, torch.bfloat16)  # converted to float32 on loading
INIT_STD = 0.02  # truncated normal, as ViT and DeiT initialise


@checks_keywords()
def load_checkpoint(folder: str | Path) -> MoRViT:
    """Load a checkpoint folder as a reference model, in float32 and evaluation mode.

    Raises ConfigError or CheckpointError, which list every wrong field or tensor.

    >>> model = md.load_checkpoint("checkpoint")
    """
    folder = Path(folder)
    check_utf8(folder, CheckpointError)
    return build_model(load_config(folder), _read_tensors(folder / WEIGHTS), folder / WEIGHTS)


def build_model(config: Config, tensors: dict[str, Tensor], source: Path) -> MoRViT:
    """Build the reference model from a configuration and its tensors, in float32 and evaluation mode.

    Raises CheckpointError, which names `source` and lists every missing, unexpected, mis-shaped or non-finite tensor.
    """
    with torch.device("meta"):  # shapes only: the weights come from `tensors`
        model = MoRViT(config)
    _check(tensors, {name: tuple(t.shape) for name, t in model.state_dict().items()}, source)
    widened = {name: t.float() if t.dtype in WIDENED else t for name, t in tensors.items()}
    model.load_state_dict(widened, assign=True)
    return model.eval().requires_grad_(False)


@checks_keywords()
def save_checkpoint(model: MoRViT, folder: str | Path, force: bool = False) -> None:
    """Write the configuration and the weights to a folder, atomically; loading returns identical tensors.

    Raises OutputError where `folder` exists, unless `force`, or cannot be written, and ConfigError for a
    configuration that could not be loaded, such as one with a threshold that is NaN.

    >>> md.save_checkpoint(model, "checkpoint", force=True)
    """
    config = checked(model.config)
    check_utf8(Path(folder))
    with new_folder(Path(folder), marker="config.json", lists=checkpoint_files, force=force) as partial:
        (partial / "config.json").write_text(config.to_json(), encoding="utf-8")
        tensors = {  # copies: safetensors rejects tensors that share memory
            name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, t in model.state_dict().items()
        }
        try:
            save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:  # wraps the operating system's error
            raise OutputError(f"{folder} was not written: {error}; free some space and repeat") from None
        make_readable(partial / WEIGHTS)


def checkpoint_files(folder: Path, config: dict[str, Any]) -> list[str]:
    """Names of the files beside `config.json`."""
    return [WEIGHTS]


def init_model(config: Config, seed: int = 0) -> MoRViT:
    """Return a randomly initialised model, to measure an architecture's speed before training it.

    Biases are not zero, because a simplifier would remove them and the measured speed would be too high.
    """
    generator = torch.Generator().manual_seed(seed)
    model = MoRViT(config)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=INIT_STD, generator=generator)
            if module.bias is not None:
                nn.init.trunc_normal_(module.bias, std=INIT_STD, generator=generator)
    if config.cls_token:
        nn.init.trunc_normal_(model.cls_token, std=INIT_STD, generator=generator)
    nn.init.trunc_normal_(model.pos_embed, std=INIT_STD, generator=generator)
    return model.eval().requires_grad_(False)


def fingerprint(folder: str | Path) -> str:
    """Return the sha256 of a checkpoint's two files, which identifies it in plans and bundles."""
    digest = hashlib.sha256()
    for name in ("config.json", WEIGHTS):
        with (Path(folder) / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def load_with_fingerprint(folder: str | Path) -> tuple[MoRViT, str]:
    """Load a checkpoint, and return its `fingerprint` from before it was read, for `check_unchanged`."""
    try:
        sha256 = fingerprint(folder)
    except OSError:
        sha256 = ""  # loading says what is missing; a checkpoint that appears just now has changed
    return load_checkpoint(folder), sha256


def check_unchanged(folder: str | Path, sha256: str) -> None:
    """Raise CheckpointError unless a checkpoint still has the `fingerprint` that it had when it was loaded."""
    if fingerprint(folder) != sha256:
        raise CheckpointError(
            f"{folder} changed while it was read (its sha256 differs from that at the start); nothing was written. "
            "Wait until it is complete, then repeat"
        )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; a checkpoint is config.json and {WEIGHTS} in one folder")
    try:
        return read_safetensors(path)[0]
    except (SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                raise CheckpointError(
                    f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` where you cloned it"
                ) from None
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is not a complete safetensors file: {error}; copy it again, "
            "or save it again from your training code"
        ) from None


def _check(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Raise CheckpointError if the tensors differ from the shapes that the configuration implies."""
    problems = [f"missing: {name} {list(shape)}" for name, shape in shapes.items() if name not in tensors]
    for name, tensor in tensors.items():
        if name not in shapes:
            problems.append(f"unexpected: {name} {list(tensor.shape)}")
        elif tuple(tensor.shape) != shapes[name]:
            problems.append(f"mis-shaped: {name} is {list(tensor.shape)}, expected {list(shapes[name])}")
        elif tensor.dtype not in (torch.float32, *WIDENED):
            problems.append(f"dtype: {name} is {tensor.dtype}, expected float32, float16 or bfloat16")
        elif not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            problems.append(f"not finite: {name} has {bad} NaN or infinite values of {tensor.numel()}")
    if problems:
        raise CheckpointError(
            f"{path} does not fit its configuration, {len(problems)} problem(s):\n{listed(problems)}"
        )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, and its metadata.

    Raises CheckpointError for two tensors with one name, of which the library would keep the last. SafetensorError,
    OSError and ValueError are left to the caller: its message depends on what the file should be.
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
