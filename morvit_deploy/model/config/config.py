"""The model configuration: `config.json` of a `morvit/1` or `morvit/2` checkpoint, checked field by field.

Every field that affects the logits is required, unless older formats did not have it, and unknown fields are errors.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from morvit_deploy.model.config.parts import (
    MAX_CHANNELS,
    ImageSize,
    Preprocess,
    Reduction,
    RouterConfig,
    Size,
    Threshold,
)
from morvit_deploy.model.config.problems import routing_problems, shape_problems
from morvit_deploy.model.routings import ROUTINGS
from morvit_deploy.model.routings.record import Mode, RoutingRecord
from morvit_deploy.strict_fields import Positive, Strict

FORMAT, GROWN = "morvit/1", "morvit/2"
# fields that only morvit/2 has; at their defaults they are not written, so that older checkpoints keep their digests
NEW_FIELDS = ("pooling", "cls_token", "patch_stride", "reduction")
MAX_REGISTERS = 64


def _known(routing: str) -> str:
    if routing not in ROUTINGS:
        raise ValueError(f"routing: got {routing!r}, expected one of {', '.join(map(repr, ROUTINGS))}")
    return routing


class Config(Strict):
    """Architecture, routing and preprocessing of one MoR-ViT; docs/format.md describes the fields."""

    format: Literal["morvit/1", "morvit/2"]
    image_size: ImageSize  # (height, width) if they differ
    patch_size: Size
    in_channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
    num_classes: Size
    embed_dim: Size
    num_heads: Size
    mlp_dim: Size
    qkv_bias: bool
    norm_eps: Positive
    activation: Literal["gelu", "gelu_tanh", "relu"]
    sharing: Literal["none", "cycle", "middle_cycle"]
    cycle_depth: Size
    num_recursions: Size
    routing: Annotated[str, AfterValidator(_known)]
    router: RouterConfig | None
    gate: Literal["block", "delta", "hard"]
    attention_scope: Literal["active", "all"]
    capacity: tuple[Size, ...] | None
    head_hidden: tuple[Size, ...]
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    head_activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    # what the head reads: CLS, or the mean of the patch tokens, after the final norm or (`mean_norm`) before it
    pooling: Literal["cls", "mean", "mean_norm"] = "cls"
    cls_token: bool = True
    patch_stride: Size | None = None  # pixels from one patch to the next, if they overlap
    register_tokens: Annotated[int, Field(ge=0, le=MAX_REGISTERS)] = 0
    # on router logits, one for each step (null: not routed); `capacity` then holds the mean counts of training
    thresholds: tuple[Threshold | None, ...] | None = None
    reduction: Reduction | None = None  # where tokens leave, with a routing that shortens a plain ViT
    provenance: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return (
            f"Config({self.routing!r}, {self.num_layers} layers, {self.num_steps} steps, {self.num_patches} patch "
            f"tokens of {self.embed_dim}, {self.num_classes} classes, {self.pictures})"
        )

    __str__ = __repr__

    @property
    def record(self) -> RoutingRecord:
        """Properties of the routing. Code outside `model/` and `graph/` reads them and never compares the name."""
        return ROUTINGS[self.routing]

    @property
    def schedule(self) -> tuple[int, ...] | None:
        """The number of tokens that run each step of every image; None if it depends on the image, or is always N."""
        return self.capacity if self.thresholds is None else None

    @property
    def ragged(self) -> bool:
        """Whether the trained model runs as many tokens as an image needs, by depths or by its own thresholds.

        Without a plan such a checkpoint is exported as one bucket that holds every token; calibration fits smaller
        ones to the counts, and every plan that routes as it was trained gives the same logits.
        """
        return self.record.routes and self.schedule is None

    @property
    def own_mode(self) -> Mode:
        """The plan mode that routes as the model was trained."""
        return self.record.own_mode if self.thresholds is None else "threshold"

    @property
    def num_patches(self) -> int:
        """Number of patch tokens, N."""
        rows, columns = self.grid
        return rows * columns

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of images, in pixels."""
        size = self.image_size
        return size if isinstance(size, tuple) else (size, size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; pixels beyond the last whole patch are not read."""
        patch, stride = self.patch_size, self.patch_stride or self.patch_size
        high, wide = ((edge - patch) // stride + 1 for edge in self.image_shape)
        return high, wide

    @property
    def pictures(self) -> str:
        """Size of images in words: 224×224, height first."""
        return "×".join(map(str, self.image_shape))

    @property
    def front(self) -> int:
        """Number of tokens before the patches: CLS, if there is one."""
        return int(self.cls_token)

    @property
    def num_tokens(self) -> int:
        """Number of all tokens: CLS, patches and registers."""
        return self.front + self.num_patches + self.register_tokens

    @property
    def num_layers(self) -> int:
        """Number of block applications of a token that runs every step, L."""
        ends = 2 if self.sharing == "middle_cycle" else 0
        return ends + self.cycle_depth * self.num_recursions

    @property
    def num_steps(self) -> int:
        """Number of routed steps: recursions of the cycle, or layers if a token's depth is a number of layers."""
        return self.record.num_steps(self)

    @property
    def routed_tokens(self) -> int:
        """Number of tokens that are routed and counted by capacities: the N patches, plus CLS if it is routed."""
        return self.num_patches + self.record.routes_cls

    @model_validator(mode="after")
    def _possible(self) -> Config:
        problems = [*self._format_problems(), *shape_problems(self), *routing_problems(self)]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _format_problems(self) -> list[str]:
        """Fields that need another format than the one stated."""
        if self.format == GROWN:
            return []
        return [f"format: got {self.format!r}, expected {GROWN!r} with {need}" for need in needs_grown(self)]

    @model_serializer(mode="wrap")
    def _without_defaults(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = fields(self)
        for name in ("thresholds", *NEW_FIELDS):
            if getattr(self, name) == Config.model_fields[name].default:  # as before the field existed
                written.pop(name, None)
        return written

    def to_json(self) -> str:
        """Return the text of `config.json`; `parse_config` restores an equal object."""
        fields = self.model_dump(mode="json")
        for name in ("head_activation", "register_tokens", "provenance"):
            if getattr(self, name) == Config.model_fields[name].default:  # as older versions wrote it
                del fields[name]
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def needs_grown(config: Config) -> list[str]:
    """Return what a configuration has that only morvit/2 can express, as `field value`; empty for morvit/1."""
    needs = {name: getattr(config, name) for name in NEW_FIELDS}
    grown = {name: value for name, value in needs.items() if value != Config.model_fields[name].default}
    if isinstance(config.image_size, tuple):
        grown["image_size"] = config.image_size
    if config.in_channels != 3:
        grown["in_channels"] = config.in_channels
    if config.head_activation == "none":
        grown["head_activation"] = "none"
    stated = config.model_dump(mode="json", include=set(grown), exclude_defaults=True)
    return [f"{name} {json.dumps(stated[name])}" for name in grown]
