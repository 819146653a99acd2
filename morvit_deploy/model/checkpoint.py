"""Checkpoints of format `morvit/1`: a folder with `config.json` and `model.safetensors`, strict both ways."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from morvit_deploy.errors import CheckpointError, OutputError
from morvit_deploy.files import make_readable, new_folder
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.model.config import Config, load_config
from morvit_deploy.model.reference import MoRViT

WEIGHTS = "model.safetensors"
LFS = b"version https://git-lfs"  # how a pointer file begins
WIDENED = (torch.float16, torch.bfloat16)  # loaded, then widened to float32
INIT_STD = 0.02  # truncated normal, as ViT and DeiT initialise


@checks_keywords()
def load_checkpoint(folder: str | Path) -> MoRViT:
    """The reference model of a checkpoint folder, in float32 and evaluation mode.

    Raises ConfigError or CheckpointError with every field or tensor that is wrong.

    >>> model = md.load_checkpoint("checkpoint")
    """
    folder = Path(folder)
    config = load_config(folder)
    return build_model(config, _read_tensors(folder / WEIGHTS), folder / WEIGHTS)


def build_model(config: Config, tensors: dict[str, Tensor], source: Path) -> MoRViT:
    """The reference model of a configuration and its tensors, in float32 and evaluation mode.

    CheckpointError lists every tensor that is missing, too much, mis-shaped or not finite; `source` is for it.
    """
    with torch.device("meta"):  # shapes without the cost of an initialisation
        model = MoRViT(config)
    _check(tensors, {name: tuple(t.shape) for name, t in model.state_dict().items()}, source)
    widened = {name: t.float() if t.dtype in WIDENED else t for name, t in tensors.items()}
    model.load_state_dict(widened, assign=True)
    return model.eval().requires_grad_(False)


@checks_keywords()
def save_checkpoint(model: MoRViT, folder: str | Path, force: bool = False) -> None:
    """Write config and weights so that loading returns the same bytes; whole or not at all.

    Raises OutputError where `folder` exists, unless `force`, or cannot be written.

    >>> md.save_checkpoint(model, "checkpoint", force=True)
    """
    with new_folder(Path(folder), marker="config.json", force=force) as partial:
        (partial / "config.json").write_text(model.config.to_json(), encoding="utf-8")
        tensors = {
            name: t.detach()
            .cpu()
            .clone(memory_format=torch.contiguous_format)  # safetensors takes no shared memory
            for name, t in model.state_dict().items()
        }
        try:
            save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:  # wraps what the system said
            raise OutputError(f"{folder} was not written: {error}; free some space and repeat") from None
        make_readable(partial / WEIGHTS)


def init_model(config: Config, seed: int = 0) -> MoRViT:
    """A randomly initialised model: to measure an architecture's speed before anyone trains it."""
    generator = torch.Generator().manual_seed(seed)
    model = MoRViT(config)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=INIT_STD, generator=generator)
            if (
                module.bias is not None
            ):  # not zero: a simplifier drops what adds zero, and would flatter the speed
                nn.init.trunc_normal_(module.bias, std=INIT_STD, generator=generator)
    nn.init.trunc_normal_(model.cls_token, std=INIT_STD, generator=generator)
    nn.init.trunc_normal_(model.pos_embed, std=INIT_STD, generator=generator)
    return model.eval().requires_grad_(False)


def fingerprint(folder: str | Path) -> str:
    """sha256 over the checkpoint's two files: which weights a plan or bundle was made from."""
    digest = hashlib.sha256()
    for name in ("config.json", WEIGHTS):
        digest.update((Path(folder) / name).read_bytes())
    return digest.hexdigest()


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; a checkpoint is config.json and {WEIGHTS} in one folder")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                raise CheckpointError(
                    f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` where you cloned it"
                ) from None
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is not a whole safetensors file: {error}; copy it again, "
            "or export it again from your training code"
        ) from None


def _check(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Compare with the shapes that the configuration implies; list every difference."""
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
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise CheckpointError(f"{path} does not fit its configuration, {len(problems)} problem(s):\n{listed}")
