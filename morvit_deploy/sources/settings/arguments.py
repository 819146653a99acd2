"""Arguments of a training script that a checkpoint holds: those that change logits are used or refused. No torch."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENTRIES = ("args", "arch", "hyper_parameters", "hparams", "config", "cfg", "opt")  # that hold arguments
NESTED = 3  # levels of entries inside entries
MODEL_NAMES = ("model", "arch", "model_name")
IMAGE_SIZES = ("img_size", "input_size", "image_size")  # timm, DeiT; pixels, or channels × height × width
POOLINGS: dict[str, dict[object, str]] = {  # argument -> its values
    "global_pool": {True: "mean", False: "cls", "avg": "mean", "mean": "mean", "token": "cls", "cls": "cls"},
    "gp": {"avg": "mean", "token": "cls"},
    "use_mean_pooling": {True: "mean", False: "cls"},  # BEiT
}

# names of plain ViTs in timm and DeiT: CLS is pooled, every token runs every layer
PLAIN_NAME = re.compile(r"(deit|vit)_(tiny|small|base|large|huge)_patch\d+_\d+")
# argument -> the method that it belongs to, which drops or merges tokens without parameters of its own
REDUCING = {
    "base_keep_rate": "EViT",
    "drop_loc": "EViT",
    "fuse_token": "EViT",
    "ponder_token_scale": "A-ViT",
    "gate_scale": "A-ViT",
    "gate_center": "A-ViT",
    "tome_r": "ToMe",
    "prop_attn": "ToMe",
    "trace_source": "ToMe",
    "ats_blocks": "ATS",
}
REDUCING_NAMES = {  # part of a model's name -> method
    r"shrink": "EViT",
    r"evit": "EViT",
    r"avit": "A-ViT",
    r"tome": "ToMe",
    r"ats": "ATS",
    r"evo": "Evo-ViT",
}


@dataclass
class Arguments:
    """The arguments in a file by the name of their entry, and those that were used."""

    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def find(self, *names: str) -> tuple[Any, str]:
        """Return the first argument of these names that is not None, and where it is; (None, "") without one."""
        for entry, values in self.entries.items():
            for name in names:
                if values.get(name) is not None:
                    self.used.add(f"{entry}.{name}")
                    return values[name], f"{entry}.{name} in the file"
        return None, ""

    @property
    def model(self) -> str:
        """The name of the model, such as deit_tiny_patch16_224; empty if it is not known."""
        found = self.find(*MODEL_NAMES)[0]
        return found if isinstance(found, str) else ""

    @property
    def is_plain_name(self) -> bool:
        """Whether the model has the name of a plain ViT of timm or DeiT."""
        return PLAIN_NAME.fullmatch(self.model) is not None

    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """Return the image size (height, width), by where it is."""
        value, origin = self.find(*IMAGE_SIZES)
        edges = edges_of(value)
        return {} if edges is None else {origin: edges}

    def pooling(self) -> tuple[str | None, str]:
        """Return what the head reads, cls or mean, and where this was read; None if no argument says it."""
        for name, values in POOLINGS.items():
            value, origin = self.find(name)
            if isinstance(value, bool | str) and (known := values.get(value)):
                return known, origin
        if self.is_plain_name:
            return "cls", f"the model's name {self.model!r} in the file"
        return None, ""

    def method(self) -> str:
        """Return the method by which the model reduces its tokens; empty if no argument says that it does."""
        return next((method for method, _ in self._signs()), "")

    def reduction(self) -> str:
        """Return how the model reduces its tokens, with the arguments that say so; empty if none does."""
        signs = self._signs()
        return f"{signs[0][0]} ({', '.join(sign for _, sign in signs)})" if signs else ""

    def _signs(self) -> list[tuple[str, str]]:
        """Return each argument that says that tokens are reduced, after its method."""
        ignored = {"EViT"} if self.find("base_keep_rate")[0] == 1 else set()
        signs = [
            (method, f"{entry}.{name} {values[name]!r}")
            for entry, values in self.entries.items()
            for name, method in REDUCING.items()
            if values.get(name) not in (None, False, "")
        ]
        words = re.split(r"[^a-z]+", self.model.lower())
        signs += [
            (method, f"model {self.model!r}") for part, method in REDUCING_NAMES.items() if part in words
        ]
        return [(method, sign) for method, sign in signs if method not in ignored]

    def unread(self) -> list[str]:
        """Return the names of the arguments that were not used."""
        names = [
            f"{entry}.{name}"
            for entry, values in self.entries.items()
            for name, value in values.items()
            if not isinstance(value, Mapping)
        ]
        return [name for name in names if name not in self.used]


def edges_of(size: object) -> tuple[int, int] | None:
    """Return (height, width) of a stored image size: N, a pair, or channels × height × width; None for others."""
    edges = [*size] if isinstance(size, list | tuple) else [size, size]
    if len(edges) not in (2, 3):
        return None
    high, wide = edges[-2:]
    if type(high) is int and type(wide) is int and high > 0 and wide > 0:
        return high, wide
    return None


def arguments_in(held: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments among the entries of a training file, by entry; those inside others as `entry.name`."""
    found: dict[str, dict[str, Any]] = {}
    for entry in ENTRIES:
        value = held.get(entry)
        if entry == "arch" and isinstance(value, str):  # timm saves the model's name beside its arguments
            found[entry] = {"model": value}
        _collect(entry, value, found, NESTED)
    return found


def _collect(entry: str, value: Any, found: dict[str, dict[str, Any]], deep: int) -> None:
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if not isinstance(value, Mapping):
        return
    found[entry] = {str(name): one for name, one in value.items()}
    for name, one in found[entry].items():
        if deep:
            _collect(f"{entry}.{name}", one, found, deep - 1)
