"""Detection of a checkpoint's family from the names of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from morvit_deploy.errors import CheckpointError, ConfigError, listed
from morvit_deploy.sources.families.edge_recvit import EdgeRecViT
from morvit_deploy.sources.families.family import SHOWN, Family, evidence
from morvit_deploy.sources.families.hf_vit import TransformersViT
from morvit_deploy.sources.families.native import Native
from morvit_deploy.sources.families.reducing import DynamicViT, EViT
from morvit_deploy.sources.families.refused import REFUSED
from morvit_deploy.sources.families.timm_vit import TimmViT
from morvit_deploy.sources.families.torchvision_vit import TorchvisionViT
from morvit_deploy.sources.families.vision_mor import VisionMoR
from morvit_deploy.sources.tensors.keymap import assign
from morvit_deploy.sources.tensors.reading import Contents

NATIVE = Native()
# the native family last: its names are timm's too
FAMILIES: tuple[Family, ...] = (
    EdgeRecViT(),
    VisionMoR(),
    TransformersViT(),
    DynamicViT(),
    TimmViT(),
    EViT(),
    TorchvisionViT(),
    NATIVE,
)
NAMES = tuple(family.name for family in FAMILIES)


class Recognised(NamedTuple):
    """A family, and the keys it was detected from."""

    family: Family
    because: list[str]


def recognise(contents: Contents, wanted: str | None = None) -> Recognised:
    """Return the family of a checkpoint, or the `wanted` one.

    Raises CheckpointError if no family matches, if several do, or if the family is not supported.
    """
    keys = list(contents.tensors)
    if wanted is not None:
        return Recognised(_called(wanted), [f"--family {wanted}"])
    for foreign in REFUSED:
        if (matched := evidence(foreign.signature, keys)) is not None:
            raise CheckpointError(
                f"{contents.path} is {foreign.title} (it has {', '.join(matched)}), which is not supported: "
                f"{foreign.reason}"
            )
    format = str((contents.config or {}).get("format", ""))
    if format.startswith("morvit/"):
        return Recognised(NATIVE, [f"format {format!r} in config.json"])
    method, why = contents.arguments.method(), contents.arguments.reduction()
    for family in FAMILIES:
        if method and family.method == method and evidence(family.signature, keys) is not None:
            return Recognised(family, [why])
    found = [
        (family, matched)
        for family in FAMILIES
        if family.named and (matched := evidence(family.signature, keys)) is not None
    ]
    found = [(family, matched) for family, matched in found if not _part_of_another(family, found, keys)]
    if len(found) == 1:
        return Recognised(*found[0])
    if found:
        named = listed([f"{family.title}: {', '.join(matched)}" for family, matched in found])
        raise CheckpointError(
            f"{contents.path} contains tensors of {len(found)} families:\n{named}\nsave one model per file"
        )
    raise CheckpointError(_unknown(contents, keys))


def _part_of_another(family: Family, found: Sequence[tuple[Family, list[str]]], keys: Sequence[str]) -> bool:
    """Whether another matching family accounts for every key and this one does not.

    Unrolled layers have timm's names too: they are native only if timm's rules do not cover the other keys.
    """
    unknown = {one.name: len(assign(keys, one.rules).unknown) for one, _ in found}
    mine = unknown.pop(family.name)
    if family.name == "native" and "timm_vit" in unknown:
        return mine > 0 or not unknown["timm_vit"]
    return mine > 0 and 0 in unknown.values()


def _called(name: str) -> Family:
    for family in FAMILIES:
        if family.name == name:
            return family
    raise ConfigError(f"--family: got {name!r}, expected one of {', '.join(NAMES)}")


def _unknown(contents: Contents, keys: Sequence[str]) -> str:
    """Return the message for an unknown checkpoint: the models in it, or the differences to the nearest family."""
    groups = _groups(keys)
    models = {name: family for name, inner in groups.items() if (family := _family_of(inner)) is not None}
    if models:
        named = listed([f"{name}.*: {family.title}" for name, family in models.items()])
        others = sorted(set(groups) - set(models))
        besides = f", and other tensors ({', '.join(others[:6])})" if others else ""
        return (
            f"{contents.path} contains {len(models)} model(s) under a prefix{besides}:\n{named}\n"
            f"choose one with --prefix {next(iter(models))}. or save the one you need: "
            "torch.save(model.state_dict(), PATH)"
        )
    nearest = _nearest(keys)
    if not nearest:
        shown = listed([f"{key} {list(contents.tensors[key].shape)}" for key in keys], SHOWN)
        return (
            f"{contents.path} belongs to no supported family ({', '.join(NAMES)}): none of the names of its "
            f"{len(keys)} tensors is known:\n{shown}"
        )
    share = f"{assign(keys, nearest[0].rules).known} of its {len(keys)} tensors"
    named = " and ".join(f"{family.title} ({family.name})" for family in nearest)
    which = (
        f"The nearest is {named}, which has" if len(nearest) == 1 else f"Equally near are {named}, which have"
    )
    return (
        f"{contents.path} belongs to no supported family. {which} the names of {share}; the differences are\n"
        f"{listed(_differences(contents, nearest), SHOWN)}"
    )


def _nearest(keys: Sequence[str]) -> list[Family]:
    """Return the families that know the largest share of the keys; of these, those whose signature is most complete.

    Empty if none knows any key; several if they are equally near.
    """

    def nearness(family: Family) -> tuple[int, float]:
        present = sum(evidence((pattern,), keys) is not None for pattern in family.signature)
        return assign(keys, family.rules).known, present / len(family.signature)

    by_family = {family: nearness(family) for family in FAMILIES if family.named}
    most = max(by_family.values())
    nearest = [family for family, near in by_family.items() if near == most and near[0]]
    near = {type(family) for family in nearest}  # a family that another one extends is nearer than that one
    nearest = [family for family in nearest if near.isdisjoint(type(family).__mro__[1:])]
    return [family for family in nearest if family is not NATIVE] or nearest  # its names are timm's, too


def _differences(contents: Contents, families: Sequence[Family]) -> list[str]:
    """Return the keys that each family requires and the file lacks, and those that none of them knows."""
    keys = list(contents.tensors)
    lines = []
    for family in families:
        of = f" of {family.name}" if len(families) > 1 else ""
        lacking = [pattern for pattern in family.signature if evidence((pattern,), keys) is None]
        lines += [f"missing{of}: {_readable(pattern)}" for pattern in lacking]
    unknown = set.intersection(*(set(assign(keys, family.rules).unknown) for family in families))
    return [
        *lines,
        *(f"unexpected: {key} {list(contents.tensors[key].shape)}" for key in keys if key in unknown),
    ]


def _readable(pattern: str) -> str:
    """Return a pattern of keys in a readable form."""
    return pattern.replace(r"\d+", "{i}").replace("\\.", ".").replace("(?:", "(")


def _groups(keys: Sequence[str]) -> dict[str, list[str]]:
    """Group keys by their first component, which is removed."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        first, _, rest = key.partition(".")
        if rest:
            groups.setdefault(first, []).append(rest)
    return groups


def _family_of(keys: Sequence[str]) -> Family | None:
    named = (family for family in FAMILIES if family.named)
    return next((family for family in named if evidence(family.signature, keys) is not None), None)
