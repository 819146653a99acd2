"""Layers that a file holds one by one, and the unique blocks that they are copies of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.families.family import Draft
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.ties import Tying, find_tying, near_ties, prove_tying, tied_tensors

LAYERS = "layers."  # before the number of a layer that is not yet a block


def settle_layers(draft: Draft, questions: Questions) -> None:
    """`layers.{i}.*` of a draft become the unique blocks that they are copies of; sets sharing and the proof of it.

    With `--sharing` the tie is proved or refused; without, the shortest cycle of bit-identical copies is taken.
    """
    layers = take_layers(draft.tensors)
    tying = _asked_tying(questions, len(layers)) or find_tying(layers)
    tie(draft, layers, tying, "leave --sharing out to load them as they are")
    draft.remarks += near_ties(layers, tying)
    draft.tied = told_of(tying, len(layers))
    draft.fields |= {
        "sharing": tying.sharing,
        "cycle_depth": tying.cycle_depth,
        "num_recursions": tying.num_recursions,
    }


def take_layers(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Take `layers.{i}.*` out of tensors: each layer's by their name in it."""
    names = [name for name in tensors if name.startswith(LAYERS)]
    count = count_of(tensors, LAYERS.removesuffix("."))
    layers: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name in names:
        number, _, rest = name.removeprefix(LAYERS).partition(".")
        layers[int(number)][rest] = tensors.pop(name)
    return layers


def count_of(tensors: Mapping[str, Tensor], stack: str) -> int:
    """How many `stack.{i}` there are; CheckpointError when numbers are left out."""
    numbers = {int(name.split(".")[1]) for name in tensors if name.startswith(f"{stack}.")}
    absent = [i for i in range(len(numbers)) if i not in numbers]
    if absent:
        raise CheckpointError(
            f"{stack}: there are {len(numbers)}, numbered up to {max(numbers)}, but number {absent[0]} is missing; "
            "the file is not whole"
        )
    return len(numbers)


def tie(draft: Draft, layers: Sequence[Mapping[str, Tensor]], tying: Tying, what_to_do: str) -> None:
    """Put the unique blocks of proved ties into a draft, and mark in its table which layers are copies.

    CheckpointError, with `what_to_do` about it, when the ties do not hold, or blocks are in the file in both forms.
    """
    prove_tying(layers, tying, what_to_do)
    unique = tied_tensors(layers, tying)
    if both := sorted(draft.tensors.keys() & unique.keys()):
        name = next(name for name in tying.names() if both[0].startswith(f"{name}."))
        raise CheckpointError(f"the file holds layers unrolled and {name} beside them; save one of the two")
    draft.tensors |= unique
    names = tying.names()
    rows = []
    for row in draft.rows:
        if row.target is not None and row.target.startswith(LAYERS):
            number, _, rest = row.target.removeprefix(LAYERS).partition(".")
            block = names[int(number)]
            first = names.index(block)
            how = row.how if first == int(number) else f"{row.how}; the same bits as layer {first}'s"
            row = replace(row, target=f"{block}.{rest}", how=how)
        rows.append(row)
    draft.rows = rows


def _asked_tying(questions: Questions, layers: int) -> Tying | None:
    """The tie that the command line requires; CheckpointError when so many layers cannot have it."""
    sharing, depth = questions.given.sharing, questions.given.cycle_depth
    if sharing is None:
        return None
    questions.note("sharing", sharing, "command line, --sharing")
    if sharing == "none":  # no cycle: --cycle-depth has no effect
        return Tying("none", layers, 1)
    if depth is not None:
        questions.note("cycle_depth", depth, "command line, --cycle-depth")
    inside = layers - 2 if sharing == "middle_cycle" else layers
    depth = depth or 1
    if inside < depth or inside % depth:
        raise CheckpointError(
            f"--sharing {sharing} with --cycle-depth {depth}: the file has {layers} layers, and {inside} of them are "
            "no whole number of cycles"
        )
    return Tying(sharing, depth, inside // depth)


def told_of(tying: Tying, layers: int) -> str:
    """The tie in words."""
    if tying.sharing == "none":
        return f"{layers} layers, each loaded by itself: nothing is tied"
    ends = "between the first and the last " if tying.sharing == "middle_cycle" else ""
    return (
        f"{layers} layers: {tying.cycle_depth} unique block(s) {ends}applied {tying.num_recursions} times; every "
        "tensor of every copy is bit-identical"
    )
