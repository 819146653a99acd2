"""Steps that the families share, from tensors to config.json: sizes, positions, preprocessing, labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError, listed
from morvit_deploy.model.config import Preprocess
from morvit_deploy.sources.families.family import SHOWN, Draft, rename
from morvit_deploy.sources.families.shape import Edges, Rows, said, settle_shape
from morvit_deploy.sources.settings import preprocessing
from morvit_deploy.sources.settings.arguments import edges_of
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.positions import grid_of, split_positions
from morvit_deploy.sources.tensors.reading import Contents

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # width of a published ViT -> number of heads
HEAD_WIDTH = 64  # columns of a head in other ViTs

PLAIN = {  # fields of a model without routing
    "routing": "none",
    "router": None,
    "gate": "hard",
    "attention_scope": "active",
    "capacity": None,
}
NEEDED = (  # targets of a model without routing, before its layers are tied
    *("patch_embed.proj.weight", "cls_token", "pos_embed"),
    *("layers.0.mlp.fc1.weight", "norm.weight", "head.weight"),
)
AXES = {"patch_embed.proj.weight": 4, "cls_token": 3, "pos_embed": 3, "norm.weight": 1}  # other tensors: 2
WITHOUT = {  # the only missing tensor -> what this means
    "cls_token": "a model of this family classifies by CLS",
    "pos_embed": "only learned position embeddings are supported",
    "head.weight": "it was saved without its head, so it returns features and not logits; to take the features for "
    "its outputs, give --head-activation none",
}


def need(tensors: Mapping[str, Tensor], contents: Contents, title: str, *names: str) -> None:
    """Raise CheckpointError if a target of `names` is missing or has another number of axes."""
    missing = [name for name in names if name not in tensors]
    if missing:
        why = WITHOUT.get(missing[0], "") if len(missing) == 1 else ""
        raise CheckpointError(
            f"{contents.path} is {title} without {', '.join(missing)}: {why or 'it is incomplete'}"
        )
    wrong = [
        f"{name} is {list(tensors[name].shape)}, expected {axes} axes"
        for name in names
        if tensors[name].ndim != (axes := AXES.get(name, 2))
    ]
    if wrong:
        raise CheckpointError(f"{contents.path} is {title}, but:\n{listed(wrong, SHOWN)}")


def add_missing_head(tensors: dict[str, Tensor], questions: Questions) -> list[str]:
    """Add the identity as the head of a model that was saved without one, if --head-activation none asks for it.

    Returns remarks. The outputs are then the features, exactly.
    """
    norm = tensors.get("norm.weight")
    if "head.weight" in tensors or norm is None or questions.given.head_activation != "none":
        return []
    width = norm.shape[0]
    tensors |= {"head.weight": torch.eye(width, dtype=norm.dtype), "head.bias": norm.new_zeros(width)}
    return [f"saved without its head: the head is the identity, so the outputs are the {width} features"]


def hold_to_config(contents: Contents, found: dict[str, object]) -> None:
    """Raise CheckpointError if sizes of the tensors differ from the config.json next to them."""
    stored = contents.config or {}
    wrong = [
        f"{name}: {stored[name]} in config.json, {value} in the tensors"
        for name, value in found.items()
        if stored.get(name) not in (None, value, [value, value])  # sizes may be pairs
    ]
    if wrong:
        raise CheckpointError(
            f"{contents.path} and its config.json describe different models:\n{listed(wrong, SHOWN)}"
        )


def image_sizes(contents: Contents) -> dict[str, Edges]:
    """Return the image size (height, width) in Transformers' config.json, or in the arguments of training."""
    edges = edges_of((contents.config or {}).get("image_size"))
    if edges is not None:
        return {"config.json": edges}
    return contents.arguments.image_sizes()


def width_fields(tensors: Mapping[str, Tensor], block: str) -> dict[str, Any]:
    """Return the fields that the shapes of the tensors determine; `block` is the name of any block."""
    dim, _, patch, wide = tensors["patch_embed.proj.weight"].shape
    if patch != wide:
        raise CheckpointError(f"patches of {patch}×{wide} pixels, expected squares")
    return {
        "format": "morvit/1",
        "patch_size": patch,
        "in_channels": tensors["patch_embed.proj.weight"].shape[1],
        "embed_dim": dim,
        "mlp_dim": tensors[f"{block}.mlp.fc1.weight"].shape[0],
        "qkv_bias": f"{block}.attn.qkv.bias" in tensors,
        "num_classes": tensors["head.weight"].shape[0],
    }


def settle_positions(
    draft: Draft,
    questions: Questions,
    name: str = "pos_embed",
    sizes: Mapping[str, Edges] | None = None,
    *,
    placed: bool = True,
    stride: int | None = None,
) -> int | list[int]:
    """Set `image_size`, resample positions to it, and add the registers' positions to them.

    Returns the image size in training, as config.json has it. `name` is the source's name of the positions; `sizes`
    are the image sizes (height, width) that the files state, by origin. Registers have positions if they are
    `placed`. `stride` is the patches', if the files state it.
    """
    rows, registers = draft.tensors["pos_embed"], draft.tensors.get("register_tokens")
    if registers is not None and registers.ndim != 3:
        raise CheckpointError(
            f"register tokens: got shape {list(registers.shape)}, expected [1, tokens, dim]"
        )
    if rows.ndim != 3 or rows.shape[0] != 1:
        raise CheckpointError(f"{name}: got shape {list(rows.shape)}, expected [1, tokens, dim]")
    front, patch = int("cls_token" in draft.tensors), draft.fields["patch_size"]
    prefix = front + (0 if registers is None else registers.shape[1])
    special = prefix if placed else front
    known = Rows(rows.shape[1], patch, special, name, stride or questions.given.patch_stride)
    reading = settle_shape(known, questions, sizes or {})
    positions = split_positions(rows, prefix, reading.grid, reading.before, name)
    if front and not reading.before:
        draft.remarks.append("the file has positions for patches only; the position of CLS is zero")
    draft.fields["image_size"] = field_of(reading.size)
    stride = None if reading.stride == patch else reading.stride
    if stride is not None:
        draft.fields["patch_stride"] = stride
    if (wanted := questions.given.edges("image_size")) is not None and wanted != reading.size:
        grid = grid_of(wanted, patch, stride)
        draft.fields["image_size"] = field_of(wanted)
        trained = f"trained with {said(reading.size)}"
        questions.note("image_size", draft.fields["image_size"], f"command line, --image-size; {trained}")
        positions = positions.resized(grid)
        before, after = ("×".join(map(str, size)) for size in (reading.grid, grid))
        draft.remarks.append(
            f"position embeddings resampled from {before} to {after} patches (bicubic, antialiased)"
        )
    draft.tensors["pos_embed"] = positions.joined(front)
    if not front:
        draft.fields["cls_token"] = False
    if registers is not None:
        draft.tensors["register_tokens"] = registers + positions.prefix[front:]
        draft.fields["register_tokens"] = prefix - front
    return field_of(reading.size)


def field_of(size: Edges) -> int | list[int]:
    """Return an image size (height, width) as config.json has it: one number for a square."""
    return size[0] if size[0] == size[1] else list(size)


def edges_in(fields: Mapping[str, Any]) -> Edges:
    """Return height and width of the images of a draft's fields."""
    edges = edges_of(fields["image_size"])
    assert edges is not None, "settle_positions has set it"
    return edges


def patches_in(fields: Mapping[str, Any]) -> int:
    """Return the number of patches of a draft's fields."""
    high, wide = grid_of(edges_in(fields), fields["patch_size"], fields.get("patch_stride"))
    return high * wide


def settle_preprocess(
    fields: dict[str, Any],
    questions: Questions,
    *,
    stored: Preprocess | None = None,
    origin: str = "",
    published: str,
    example: str = "",
) -> None:
    """Set `preprocess` from the command line or from the file; otherwise it is required."""
    given, value = questions.given.preprocess, stored
    if given is not None:
        value = preprocessing.chosen(given, edges_in(fields))
        name = "" if isinstance(given, Preprocess) else f" {Path(given).name}"
        instead = f", instead of {origin}" if stored not in (None, value) else ""
        origin = f"command line, --preprocess{name}{instead}"
    if value is None:
        questions.ask("preprocess", f"published: {published}", example or "NAME")
        return
    fields["preprocess"] = value.model_dump(mode="json")
    questions.note("preprocess", fields["preprocess"], origin)


def settle_heads(questions: Questions, stored: Any, dim: int, origin: str = "config.json") -> Any:
    """Settle the number of heads, which the tensors do not determine."""
    known, usual = HEADS.get(dim), None if dim % HEAD_WIDTH else dim // HEAD_WIDTH
    of_64 = f"heads of {HEAD_WIDTH} columns" + (f", {usual} at width {dim}" if usual else "")
    return questions.settle(
        "num_heads",
        stored=stored,
        origin=origin,
        published=f"{known} at width {dim}" if known else of_64,
        example=str(known or "HEADS"),
        usual=known or usual,
    )


def settle_head(draft: Draft) -> list[int]:
    """Return the hidden widths of the head: a representation layer (tanh) makes it an MLP head."""
    if "head.0.weight" not in draft.tensors:
        return []
    rename(draft, {"head.weight": "head.1.weight", "head.bias": "head.1.bias"})
    return [draft.tensors["head.0.weight"].shape[0]]
