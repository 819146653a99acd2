"""Conversion of unrolled layers to the unique blocks that they are copies of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.families.family import Draft
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.ties import Tying, find_tying, near_ties, prove_tying, tied_tensors

LAYERS = "layers."  # prefix of unrolled layers, before their number


def settle_layers(draft: Draft, questions: Questions) -> None:
    """Replace `layers.{i}.*` of a draft by the unique blocks that they are copies of, and set `sharing`.

    With `--sharing` the given ties are verified. Without it, the shortest cycle of bit-identical copies is used.
    """
    layers = take_layers(draft.tensors)
    tying = _given_tying(questions, len(layers)) or find_tying(layers)
    tie(draft, layers, tying, "omit --sharing to load the layers without tying them")
    draft.remarks += near_ties(layers, tying)
    draft.tied = describe(tying, len(layers))
    draft.fields |= {
        "sharing": tying.sharing,
        "cycle_depth": tying.cycle_depth,
        "num_recursions": tying.num_recursions,
    }


def take_layers(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Remove `layers.{i}.*` from tensors; returns each layer's tensors by their name in the layer."""
    names = [name for name in tensors if name.startswith(LAYERS)]
    count = count_of(tensors, LAYERS.removesuffix("."))
    layers: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name in names:
        number, _, rest = name.removeprefix(LAYERS).partition(".")
        layers[int(number)][rest] = tensors.pop(name)
    return layers


def count_of(tensors: Mapping[str, Tensor], stack: str) -> int:
    """Return the number of `stack.{i}`; CheckpointError if numbers are missing."""
    numbers = {int(name.split(".")[1]) for name in tensors if name.startswith(f"{stack}.")}
    absent = [i for i in range(len(numbers)) if i not in numbers]
    if absent:
        raise CheckpointError(
            f"{stack}: got {len(numbers)}, numbered up to {max(numbers)}, but number {absent[0]} is missing; "
            "the file is incomplete"
        )
    return len(numbers)


def tie(draft: Draft, layers: Sequence[Mapping[str, Tensor]], tying: Tying, what_to_do: str) -> None:
    """Verify ties, add the unique blocks to a draft, and mark the copies in its table.

    Raises CheckpointError, with the advice `what_to_do`, if layers are not copies or blocks are stored in both forms.
    """
    prove_tying(layers, tying, what_to_do)
    unique = tied_tensors(layers, tying)
    if both := sorted(draft.tensors.keys() & unique.keys()):
        name = next(name for name in tying.names() if both[0].startswith(f"{name}."))
        raise CheckpointError(f"the file contains unrolled layers and also {name}; save one of the two")
    draft.tensors |= unique
    names = tying.names()
    rows = []
    for row in draft.rows:
        if row.target is not None and row.target.startswith(LAYERS):
            number, _, rest = row.target.removeprefix(LAYERS).partition(".")
            block = names[int(number)]
            first = names.index(block)
            how = row.how if first == int(number) else f"{row.how}; bit-identical to layer {first}"
            row = replace(row, target=f"{block}.{rest}", how=how)
        rows.append(row)
    draft.rows = rows


def _given_tying(questions: Questions, layers: int) -> Tying | None:
    """Return the ties that the options require; CheckpointError if they do not fit the number of layers."""
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
            f"--sharing {sharing} with --cycle-depth {depth}: got {layers} layers in the file, {inside} of them in "
            f"cycles, expected a multiple of {depth}"
        )
    return Tying(sharing, depth, inside // depth)


def describe(tying: Tying, layers: int) -> str:
    """Return a sentence about the ties."""
    if tying.sharing == "none":
        return f"{layers} layers, none of them tied"
    ends = "between the first and the last " if tying.sharing == "middle_cycle" else ""
    return (
        f"{layers} layers: {tying.cycle_depth} unique block(s) {ends}applied {tying.num_recursions} times; every "
        "tensor of every copy is bit-identical"
    )
