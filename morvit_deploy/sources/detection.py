"""Which family a checkpoint is of, by its tensors' names; what it lacks of the nearest one when it is of none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.sources.families.edge_recvit import EdgeRecViT
from morvit_deploy.sources.families.family import Family, evidence, listed
from morvit_deploy.sources.families.hf_vit import TransformersViT
from morvit_deploy.sources.families.native import Native
from morvit_deploy.sources.families.refused import REFUSED
from morvit_deploy.sources.families.timm_vit import TimmViT
from morvit_deploy.sources.families.vision_mor import VisionMoR
from morvit_deploy.sources.tensors.keymap import assign
from morvit_deploy.sources.tensors.reading import Contents

NATIVE = Native()
# ours last: its names are timm's, too
FAMILIES: tuple[Family, ...] = (EdgeRecViT(), VisionMoR(), TransformersViT(), TimmViT(), NATIVE)
NAMES = tuple(family.name for family in FAMILIES)


@dataclass(frozen=True)
class Recognised:
    """A family, and the keys it was detected from."""

    family: Family
    because: list[str]


def recognise(contents: Contents, wanted: str | None = None) -> Recognised:
    """The family of a checkpoint, or the `wanted` one.

    Raises CheckpointError when there is none, when it is one that cannot be loaded, or when there are two.
    """
    keys = list(contents.tensors)
    if wanted is not None:
        return Recognised(_called(wanted), [f"--family {wanted}"])
    for foreign in REFUSED:
        if (matched := evidence(foreign.signature, keys)) is not None:
            raise CheckpointError(
                f"{contents.path} is {foreign.title} (it has {', '.join(matched)}), which cannot be loaded: "
                f"{foreign.reason}"
            )
    format = str((contents.config or {}).get("format", ""))
    if format.startswith("morvit/"):
        return Recognised(NATIVE, [f"config.json says format {format!r}"])
    found = [
        (family, matched) for family in FAMILIES if (matched := evidence(family.signature, keys)) is not None
    ]
    found = [(family, matched) for family, matched in found if not _part_of_another(family, found, keys)]
    if len(found) == 1:
        return Recognised(*found[0])
    if found:
        named = "\n".join(f"  - {family.title}: {', '.join(matched)}" for family, matched in found)
        raise CheckpointError(
            f"{contents.path} holds tensors of {len(found)} families:\n{named}\nsave one model to a file"
        )
    raise CheckpointError(_unknown(contents, keys))


def _part_of_another(family: Family, found: Sequence[tuple[Family, list[str]]], keys: Sequence[str]) -> bool:
    """Does another family that was found explain every key, and this one not?

    timm's names are ours, too: unrolled layers are ours only if timm has no place for what is beside them.
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
    """The message for a checkpoint of no family: two models in one, or the nearest family and what differs."""
    groups = _groups(keys)
    models = {name: family for name, inner in groups.items() if (family := _family_of(inner)) is not None}
    if models:
        named = "\n".join(f"  - {name}.*: {family.title}" for name, family in models.items())
        others = sorted(set(groups) - set(models))
        beside = f", and other tensors beside ({', '.join(others[:6])})" if others else ""
        return (
            f"{contents.path} holds {len(models)} model(s) under names of their own{beside}:\n{named}\n"
            "save the one you want: torch.save(model.state_dict(), PATH)"
        )
    known = {family: assign(keys, family.rules) for family in FAMILIES}
    nearest = max(FAMILIES, key=lambda family: known[family].known)
    if not known[nearest].known:
        shown = "\n".join(f"  - {key} {list(contents.tensors[key].shape)}" for key in keys[:12])
        return (
            f"{contents.path} is of no known family ({', '.join(NAMES)}): not one of its {len(keys)} tensors has "
            f"a name of theirs. It begins with:\n{shown}"
        )
    lacking = [p for p in nearest.signature if evidence((p,), keys) is None]
    unknown = known[nearest].unknown
    lines = [f"missing: {_readable(pattern)}" for pattern in lacking]
    lines += [f"not known there: {key} {list(contents.tensors[key].shape)}" for key in unknown]
    return (
        f"{contents.path} is of no known family. The nearest is {nearest.title} ({nearest.name}): "
        f"{known[nearest].known} of {len(keys)} tensors have its names, but\n{listed(lines)}"
    )


def _readable(pattern: str) -> str:
    """A pattern of keys as a person writes it."""
    return pattern.replace(r"\d+", "{i}").replace("\\.", ".").replace("(?:", "(")


def _groups(keys: Sequence[str]) -> dict[str, list[str]]:
    """Keys by their first part, without it."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        first, _, rest = key.partition(".")
        if rest:
            groups.setdefault(first, []).append(rest)
    return groups


def _family_of(keys: Sequence[str]) -> Family | None:
    return next((family for family in FAMILIES if evidence(family.signature, keys) is not None), None)
