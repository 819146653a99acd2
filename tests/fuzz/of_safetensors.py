"""`model.safetensors` of a checkpoint: its bytes, its header, and its tensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from mutations import bytes_of, json_of, repeats_a_key
from promise import Case, Ended, Kind
from safetensors.torch import load_file, save

FILE = "checkpoint/model.safetensors"
WORDS = ("inspect", "checkpoint", "--json")
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int8,
    torch.bool,
    torch.complex64,
    torch.float8_e5m2,
)


def parts(content: bytes) -> tuple[bytes, bytes]:
    """The header and the data of a file."""
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length], content[8 + length :]


def joined(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


@st.composite
def other_tensors(draw: st.DrawFn, tensors: dict[str, torch.Tensor]) -> bytes:
    """A file of tensors that are missing, added, recast, reshaped or not finite."""
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    name = draw(st.sampled_from(sorted(tensors)))
    changes: dict[str, Any] = {
        "remove": lambda t: None,
        "recast": lambda t: t.to(draw(st.sampled_from(DTYPES))),
        "flatten": lambda t: t.flatten(),
        "empty": lambda t: t[:0],
        "NaN": lambda t: torch.full_like(t, torch.nan),
        "huge": lambda t: t * 1e30,
        "one more": lambda t: torch.cat([t, t]),
        "scalar": lambda t: torch.tensor(1.0),
    }
    changed = changes[draw(st.sampled_from(sorted(changes)))](tensors.pop(name))
    if changed is not None:
        tensors[draw(st.sampled_from((name, name, f"{name}x", "")))] = changed
    return save(tensors)


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    content = (seeds / FILE).read_bytes()
    header, data = parts(content)
    damaged = st.one_of(
        bytes_of(content),
        json_of(json.loads(header)).map(lambda text: joined(text, data)),
        bytes_of(header).map(lambda text: joined(text, data)),
        other_tensors(load_file(seeds / FILE)),
    )
    return damaged.map(lambda content: Case(WORDS, {FILE: content}))


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """No tensor is there twice, and all are finite."""
    content = (folder / FILE).read_bytes()
    if repeats_a_key(parts(content)[0]):
        return "accepted a tensor that is there twice"
    bad = [name for name, tensor in load_file(folder / FILE).items() if not torch.isfinite(tensor).all()]
    return f"accepted {', '.join(bad)}, which are not finite" if bad else ""


KIND = Kind("safetensors", 2000, ("checkpoint",), cases, wrong, sound=WORDS)
