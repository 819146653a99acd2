"""Native checkpoints in other containers: a training file next to its config.json, or unrolled layers."""

from __future__ import annotations

import json

from morvit_deploy.errors import CheckpointError
from morvit_deploy.model.config import FORMAT, GROWN, Config, parse_config
from morvit_deploy.sources.families.family import Draft, Family
from morvit_deploy.sources.families.layers import take_layers, tie
from morvit_deploy.sources.families.settling import patches_in, settle_positions, settle_preprocess
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.keymap import COPIED, KIND, LAYER, copy
from morvit_deploy.sources.tensors.reading import Contents
from morvit_deploy.sources.tensors.ties import Tying


class Native(Family):
    """The names of morvit/1 and morvit/2. Unrolled copies `blocks.{i}` are tied if they are bit-identical."""

    name = "native"
    title = f"a {FORMAT} or {GROWN} checkpoint"
    signature = (r"patch_embed\.proj\.weight", r"(cycle\.\d+|blocks\.\d+)\.attn\.qkv\.weight")
    rules = (
        copy(rf"(?P<at>patch_embed\.proj|norm|head|head\.\d+)\.{KIND}", r"\g<at>.\g<kind>"),
        copy(r"(?P<key>cls_token|pos_embed|register_tokens)", r"\g<key>"),
        copy(rf"(?P<at>first|last|cycle\.\d+)\.{LAYER}\.{KIND}", r"\g<at>.\g<rest>.\g<kind>"),
        copy(rf"blocks\.(?P<i>\d+)\.{LAYER}\.{KIND}", r"layers.\g<i>.\g<rest>.\g<kind>"),
        copy(rf"(?P<at>routers\.\d+\.\d+)\.{KIND}", r"\g<at>.\g<kind>"),
    )
    recipes = (COPIED,)

    def draft(self, contents: Contents, questions: Questions) -> Draft:
        if contents.config is None or contents.config.get("format") not in (FORMAT, GROWN):
            raise CheckpointError(
                f"{contents.path} has the tensor names of {FORMAT} and {GROWN}, but no config.json of that "
                "format next to it; write one (docs/format.md), since the tensors do not determine heads, eps, gate "
                "and routing"
            )
        tensors, rows = self.built(contents)
        config = parse_config(json.dumps(contents.config), source=f"{contents.path}: config.json")
        fields = config.model_dump(mode="json", exclude={"provenance"})
        draft = Draft(fields, tensors, rows, before=config.provenance or {})
        _roll(draft, config)
        if questions.given.image_size is not None:
            _resize(draft, config, questions)
        return draft


def _roll(draft: Draft, config: Config) -> None:
    """Convert `layers.{i}` to first, cycle and last, as config.json ties them; CheckpointError if they differ."""
    layers = take_layers(draft.tensors)
    draft.tied = "each block is stored once"
    if not layers:
        return
    if len(layers) != config.num_layers:
        raise CheckpointError(
            f"got {len(layers)} blocks in the file, expected {config.num_layers}, the number of layers in config.json"
        )
    what_to_do = (
        "save each block once, or, if the blocks were trained separately, set sharing to "
        '"none" and cycle_depth to the number of layers in config.json'
    )
    tie(draft, layers, Tying(config.sharing, config.cycle_depth, config.num_recursions), what_to_do)
    draft.tied = f"{len(layers)} unrolled layers; the copies are bit-identical"


def _resize(draft: Draft, config: Config, questions: Questions) -> None:
    """Change the image size: resample positions, and require the settings that depend on it."""
    fields = draft.fields
    stride = config.patch_stride or config.patch_size
    own_size = {"config.json": config.image_shape}
    settle_positions(draft, questions, sizes=own_size, placed=False, stride=stride)
    now = patches_in(fields)
    if config.capacity is not None and now != config.num_patches:
        capacity = questions.settle(
            "capacity",
            published=f"{list(config.capacity)} of {config.num_patches} patch tokens; now there are {now}",
            example=",".join(map(str, _in_proportion(config.capacity, now / config.num_patches))),
        )
        fields["capacity"] = capacity and list(capacity)
    if now != config.num_patches:
        own = config.preprocess
        settle_preprocess(
            fields,
            questions,
            published=f"mean {list(own.mean)}, std {list(own.std)}, resize {own.resize} at {config.image_size}",
            example="FILE.json",
        )


def _in_proportion(capacity: tuple[int, ...], ratio: float) -> list[int]:
    return [max(1, round(k * ratio)) for k in capacity]
