"""Ties of unrolled checkpoints: which layers are bit-identical copies, and which cycle they form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError, listed

Layer = Mapping[str, Tensor]  # tensors of one block by their name in it
SHOWN = 12  # tensors that a message lists


@dataclass(frozen=True)
class Tying:
    """How L consecutive layers are made of unique blocks: fields of config.json."""

    sharing: str  # "none", "cycle" or "middle_cycle"
    cycle_depth: int
    num_recursions: int

    def names(self) -> list[str]:
        """Return the block of each layer."""
        cycle = [f"cycle.{i}" for i in range(self.cycle_depth)] * self.num_recursions
        return ["first", *cycle, "last"] if self.sharing == "middle_cycle" else cycle


def find_tying(layers: Sequence[Layer]) -> Tying:
    """Return the shortest cycle that all layers, or all but the first and last, are bit-identical copies of."""
    labels = [_first_equal(layers, i) for i in range(len(layers))]
    for sharing, inside in (("cycle", labels), ("middle_cycle", labels[1:-1])):
        for depth in range(1, len(inside) // 2 + 1):
            if len(inside) % depth == 0 and all(
                inside[i] == inside[i - depth] for i in range(depth, len(inside))
            ):
                return Tying(sharing, depth, len(inside) // depth)
    return Tying("none", len(layers), 1)


def prove_tying(layers: Sequence[Layer], tying: Tying, what_to_do: str) -> None:
    """Raise CheckpointError if layers are not such copies, with the differing tensors and their differences."""
    problems = []
    firsts: dict[str, int] = {}
    for i, name in enumerate(tying.names()):
        first = firsts.setdefault(name, i)
        problems += [
            f"layer {i} and layer {first}, {tensor}: {differing}"
            for tensor, differing in differences(layers[first], layers[i]).items()
        ]
    if problems:
        raise CheckpointError(
            f"the {len(layers)} layers are not tied as required (sharing {tying.sharing}, {tying.cycle_depth} "
            f"block(s) applied {tying.num_recursions} times): {len(problems)} tensor(s) differ:\n"
            f"{listed(problems, SHOWN)}\n{what_to_do}"
        )


def differences(a: Layer, b: Layer) -> dict[str, str]:
    """Return the tensors in which two layers differ, with the largest difference."""
    found = {}
    for name in _unequal(a, b):
        if name not in a or name not in b:
            found[name] = "in only one of the layers"
        elif a[name].dtype != b[name].dtype:
            found[name] = f"{a[name].dtype} and {b[name].dtype}".replace("torch.", "")
        elif a[name].shape != b[name].shape:
            found[name] = f"{list(a[name].shape)} and {list(b[name].shape)}"
        else:
            found[name] = f"max |Δ| {(a[name].double() - b[name].double()).abs().max():.3g}"
    return found


def near_ties(layers: Sequence[Layer], tying: Tying) -> list[str]:
    """Return a remark for untied layers that share at least half of their matrices, which may be a broken tie.

    A version of the official MoR code untied attention only. Vectors do not count: norms and biases are initialised
    equally.
    """
    remarks = []
    unique = sorted({name: i for i, name in reversed([*enumerate(tying.names())])}.values())
    for place, i in enumerate(unique):
        matrices = sum(tensor.ndim > 1 for tensor in layers[i].values())
        for j in reversed(unique[:place]):
            unequal = _unequal(layers[j], layers[i])
            apart = sum(name in layers[i] and layers[i][name].ndim > 1 for name in unequal)
            if unequal and 2 * apart <= matrices:
                differing = ", ".join(
                    f"{name} ({by})" for name, by in differences(layers[j], layers[i]).items()
                )
                remarks.append(f"layers {j} and {i} are equal except for {differing}; loaded as two blocks")
                break
    return remarks


def tied_tensors(layers: Sequence[Layer], tying: Tying) -> dict[str, Tensor]:
    """Return the tensors of each unique block by checkpoint name, from its first layer."""
    out: dict[str, Tensor] = {}
    for name, layer in zip(tying.names(), layers, strict=True):
        out |= {f"{name}.{tensor}": value for tensor, value in layer.items() if f"{name}.{tensor}" not in out}
    return out


def _unequal(a: Layer, b: Layer) -> list[str]:
    """Return the names of tensors that differ in type or values, or that only one layer has."""
    names = sorted(a.keys() | b.keys())
    return [name for name in names if name not in a or name not in b or not _same(a[name], b[name])]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def _first_equal(layers: Sequence[Layer], i: int) -> int:
    """Return the first layer that layer i is a copy of."""
    return next(j for j in range(i + 1) if j == i or not _unequal(layers[j], layers[i]))
