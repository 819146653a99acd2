"""Unrolled checkpoints: which layers are bit-identical copies, and the cycle that they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError

Layer = Mapping[str, Tensor]  # tensors of one block by their name in it
SHOWN = 12  # tensors that a refusal lists


@dataclass(frozen=True)
class Tying:
    """How L layers in a row are made of unique blocks: the fields of config.json."""

    sharing: str  # "none", "cycle" or "middle_cycle"
    cycle_depth: int
    num_recursions: int

    def names(self) -> list[str]:
        """The block of each layer."""
        cycle = [f"cycle.{i}" for i in range(self.cycle_depth)] * self.num_recursions
        return ["first", *cycle, "last"] if self.sharing == "middle_cycle" else cycle


def find_tying(layers: Sequence[Layer]) -> Tying:
    """The shortest cycle that all layers, or all but the first and last, are bit-identical copies of."""
    labels = [_first_equal(layers, i) for i in range(len(layers))]
    for sharing, inside in (("cycle", labels), ("middle_cycle", labels[1:-1])):
        for depth in range(1, len(inside) // 2 + 1):
            if len(inside) % depth == 0 and all(
                inside[i] == inside[i - depth] for i in range(depth, len(inside))
            ):
                return Tying(sharing, depth, len(inside) // depth)
    return Tying("none", len(layers), 1)


def prove_tying(layers: Sequence[Layer], tying: Tying) -> None:
    """CheckpointError with each tensor that breaks the tie, and by how much, when layers are no such copies."""
    problems = []
    firsts: dict[str, int] = {}
    for i, name in enumerate(tying.names()):
        first = firsts.setdefault(name, i)
        problems += [
            f"layer {i} against layer {first}, {tensor}: {told}"
            for tensor, told in differences(layers[first], layers[i]).items()
        ]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems[:SHOWN])
        more = f"\n  - and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"the layers are not tied as asked ({tying.sharing}, {tying.cycle_depth} × {tying.num_recursions}): "
            f"{len(problems)} tensor(s) differ:\n{listed}{more}\nleave --sharing out to load them as they are"
        )


def differences(a: Layer, b: Layer) -> dict[str, str]:
    """Tensors in which two layers differ, with the largest difference."""
    found = {}
    for name in _unequal(a, b):
        if name not in a or name not in b:
            found[name] = "only one of them has it"
        elif a[name].shape != b[name].shape:
            found[name] = f"{list(a[name].shape)} and {list(b[name].shape)}"
        else:
            found[name] = f"max |Δ| {(a[name].double() - b[name].double()).abs().max():.3g}"
    return found


def near_ties(layers: Sequence[Layer], tying: Tying) -> list[str]:
    """Neighbours held apart that share at least half of their tensors bit for bit: a tie broken by accident."""
    remarks = []
    names = tying.names()
    for i in range(1, len(layers)):
        if names[i] == names[i - 1]:
            continue
        if 0 < len(_unequal(layers[i - 1], layers[i])) <= len(layers[i]) // 2:
            apart = differences(layers[i - 1], layers[i])
            listed = ", ".join(f"{name} ({told})" for name, told in apart.items())
            remarks.append(f"layers {i - 1} and {i} are equal but for {listed}; loaded as two blocks")
    return remarks


def tied_tensors(layers: Sequence[Layer], tying: Tying) -> dict[str, Tensor]:
    """Each unique block's tensors under its checkpoint name, from its first layer."""
    out: dict[str, Tensor] = {}
    for name, layer in zip(tying.names(), layers, strict=True):
        out |= {f"{name}.{tensor}": value for tensor, value in layer.items() if f"{name}.{tensor}" not in out}
    return out


def _unequal(a: Layer, b: Layer) -> list[str]:
    """Names of tensors that are not the same bits in both."""
    names = sorted(a.keys() | b.keys())
    return [name for name in names if name not in a or name not in b or not torch.equal(a[name], b[name])]


def _first_equal(layers: Sequence[Layer], i: int) -> int:
    """The first layer that layer i is a copy of."""
    for j in range(i):
        if layers[j].keys() == layers[i].keys() and all(
            torch.equal(layers[j][n], layers[i][n]) for n in layers[i]
        ):
            return j
    return i
