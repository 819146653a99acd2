"""Checkpoints of other code: wrappers, prefixes, other objects, damaged archives, payloads."""

from __future__ import annotations

import argparse
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from foreign_checkpoints import SAID, SAY, SIZE, vit
from hypothesis import strategies as st
from mutations import Payload, bytes_of
from numpy.typing import NDArray
from promise import OUT, Case, Ended, Kind

from morvit_deploy.errors import MorvitError
from morvit_deploy.model.checkpoint import load_checkpoint
from morvit_deploy.sources.conversion import read_model
from morvit_deploy.sources.settings.given import Given

FILE = "model.pth"
WORDS = ("convert", FILE, "-o", OUT, *SAY)
EXACT = 1e-12  # the same weights in the same arithmetic
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "net", "weights", "x")
PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "backbone.", "x.", "module.module.")
BESIDE: dict[str, Any] = {
    "epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}, "param_groups": []},
    "loss": torch.tensor(0.5), "best": np.float64(0.9), "names": ["a", "b"], "note": None,
}  # fmt: skip  # a table of what training scripts save
ODD_TENSORS = (
    torch.zeros(0), torch.tensor(torch.nan), torch.ones(3, dtype=torch.int8), torch.empty(4, 4, device="meta"),
    torch.zeros(1).expand(2**40), torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64),
)  # fmt: skip  # a table


def archived(content: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@st.composite
def wrapped(draw: st.DrawFn) -> Case:
    """The same weights, as training scripts wrap them: accepted only as the same model."""
    content: dict[str, Any] = dict(vit("aaa"))
    for prefix in draw(st.lists(st.sampled_from(PREFIXES), max_size=2)):
        content = {prefix + name: tensor for name, tensor in content.items()}
    if draw(st.booleans()):
        content = {draw(st.sampled_from(WRAPPERS)): content}
    for name in draw(st.lists(st.sampled_from(sorted(BESIDE)), max_size=3)):
        content[name] = BESIDE[name]
    return case(archived(content, legacy=draw(st.booleans())), same=True)


@st.composite
def changed(draw: st.DrawFn) -> Case:
    """Tensors renamed, missing, recast, reshaped, odd, or replaced by something else."""
    content: dict[Any, Any] = dict(vit("aaa"))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(content, key=str)))
        kind = draw(
            st.sampled_from(("remove", "rename", "cast", "reshape", "odd", "object", "payload", "key"))
        )
        tensor = content[name]
        if kind in ("remove", "rename", "key"):
            content.pop(name)
        if kind == "rename":
            content[draw(st.sampled_from((f"{name}.x", str(name).replace("0", "7"), "x", "a" * 300)))] = (
                tensor
            )
        elif kind == "key":
            content[draw(st.sampled_from((3, None, ("a", 1), 2.5)))] = tensor
        elif kind == "cast" and isinstance(tensor, torch.Tensor):
            content[name] = tensor.to(
                draw(st.sampled_from((torch.float16, torch.int32, torch.float64, torch.bool)))
            )
        elif kind == "reshape" and isinstance(tensor, torch.Tensor):
            content[name] = tensor.reshape(-1)[: draw(st.integers(0, 9))]
        elif kind == "odd":
            content[name] = draw(st.sampled_from(ODD_TENSORS))
        elif kind == "object":
            content[name] = draw(st.sampled_from((None, 3, "x", [1], {"a": torch.ones(2)}, np.ones(3))))
        elif kind == "payload":
            content[name] = Payload()
    return case(archived(content, legacy=draw(st.booleans())), same=False)


def case(content: bytes, same: bool) -> Case:
    return Case(WORDS, {FILE: content}, {"same": same})


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    damaged = bytes_of((seeds / FILE).read_bytes())
    return st.one_of(wrapped(), changed(), damaged.map(lambda content: case(content, same=True)))


def logits_of(model: torch.nn.Module) -> NDArray[np.float64]:
    pictures = torch.linspace(-2, 2, 2 * 3 * SIZE * SIZE, dtype=torch.float64).view(2, 3, SIZE, SIZE)
    logits: NDArray[np.float64] = model.double()(pictures.sin()).logits.numpy()
    return logits


@cache
def sound(path: Path) -> NDArray[np.float64]:
    return logits_of(read_model(path, Given(**SAID)).model)


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """The written checkpoint loads; the same weights give the same logits."""
    try:
        logits = logits_of(load_checkpoint(folder / OUT))
    except MorvitError as error:
        return f"wrote a checkpoint that does not load: {error}"
    if not np.isfinite(logits).all():
        return "logits are not finite"
    same = not case.facts.get("same", True) or np.abs(logits - sound(seeds / FILE)).max() <= EXACT
    return "" if same else "read the same weights as another model"


KIND = Kind("foreign", 1800, (FILE,), cases, wrong, sound=WORDS)
