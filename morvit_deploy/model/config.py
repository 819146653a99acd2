"""The model configuration: `config.json` of a `morvit/1` or `morvit/2` checkpoint, checked field by field.

Every field that affects the logits is required, unless older formats did not have it, and unknown fields are errors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from morvit_deploy.errors import ConfigError
from morvit_deploy.model.routings import ROUTINGS
from morvit_deploy.model.routings.record import Mode, RoutingRecord
from morvit_deploy.model.routings.schedules import (
    reduction_problems,
    schedule_problems,
    threshold_problems,
    unthresholded_problems,
)
from morvit_deploy.strict_fields import Finite, Positive, Strict, cut, explain, short
from morvit_deploy.strict_json import parse_json

FORMAT, GROWN = "morvit/1", "morvit/2"
# fields that only morvit/2 has; at their defaults they are not written, so that older checkpoints keep their digests
NEW_FIELDS = ("pooling", "cls_token", "patch_stride", "reduction")
MAX_STEPS, MAX_LAYERS, MAX_REGISTERS, MAX_CHANNELS = 255, 1000, 64, 64
MAX_SIZE = 1_000_000  # a larger size is a typing error
MAX_COLOR = 10.0  # of mean and std; those of images in [0, 1] are near 0.5, those of 0 … 255 near 120
MAX_PATCHES = 65_536  # 256 × 256: one head's attention matrix is then 17 GB
FURTHEST = float(np.finfo(np.float32).max)

Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Threshold = Annotated[float, Field(ge=-FURTHEST, le=FURTHEST)]  # a router logit: float32 in the graph


def _known(routing: str) -> str:
    if routing not in ROUTINGS:
        raise ValueError(f"routing: got {routing!r}, expected one of {', '.join(map(repr, ROUTINGS))}")
    return routing


def _of_unit_images(value: float) -> float:
    if abs(value) > MAX_COLOR:
        raise PydanticCustomError(
            "color",
            f"expected a value for images in [0, 1], at most {MAX_COLOR:g}; divide one for 0 … 255 by 255",
        )
    return value


Color = AfterValidator(_of_unit_images)


class RouterConfig(Strict):
    """A router: an MLP (GELU after the first hidden layer, ReLU after the others) from a token to its logit z.

    Its score is g = alpha · activation(z) (paper §3.2). With `shared`, all steps use one router.
    """

    hidden: tuple[Size, ...]
    activation: Literal["sigmoid", "tanh"]
    bias: bool
    shared: bool
    alpha: Finite


def _image_size(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
    """One message for each form of `image_size`, where pydantic has one for both."""
    pair = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
    try:
        found = inner(pair)
    except ValidationError as error:
        if isinstance(pair, tuple):
            raise PydanticCustomError(
                "image_size", f"expected [height, width], each from 1 to {MAX_SIZE:,} pixels"
            ) from None
        raise PydanticCustomError("image_size", error.errors()[0]["msg"].replace("{", "{{")) from None
    if isinstance(found, tuple) and found[0] == found[1]:
        raise PydanticCustomError("image_size", f"expected {found[0]}, one number for a square")
    return found


def _resize(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
    """One message for the three forms of `resize`, where pydantic has one for each."""
    try:
        return inner(tuple(value) if isinstance(value, list) else value)  # JSON has no tuples
    except ValidationError:
        raise PydanticCustomError(
            "resize",
            f"expected 1 to {MAX_SIZE:,} pixels of the shorter side, [height, width], or null to crop only",
        ) from None


class Preprocess(Strict):
    """Preprocessing of an image: resize the shorter side to `resize`, centre crop, normalise each channel.

    With `resize` [height, width], images are resized to exactly this size, whatever their aspect ratio; with null,
    they are cropped without resizing. Where the margin of the crop is odd, `crop_rounding` rounds its half to the
    even pixel, as torchvision and timm do, or down, as Transformers does. mean and std have a
    value for each channel, in [0, 1]: gray, RGB or RGBA.
    """

    mean: Annotated[tuple[Annotated[Finite, Color], ...], Field(min_length=1, max_length=MAX_CHANNELS)]
    std: Annotated[tuple[Annotated[Positive, Color], ...], Field(min_length=1, max_length=MAX_CHANNELS)]
    resize: Annotated[Size | tuple[Size, Size] | None, WrapValidator(_resize)]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
    crop_rounding: Literal["even", "down"] = "even"

    @model_validator(mode="after")
    def _alike(self) -> Preprocess:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"preprocess.mean: got {len(self.mean)} values, and {len(self.std)} of std; expected as many"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = fields(self)
        if self.crop_rounding == "even":
            written.pop("crop_rounding", None)
        return written


class Reduction(Strict):
    """At which layers of a plain ViT its patch tokens become fewer; `capacity` says how many go on after each.

    `attentive` (EViT): with `fuse`, the tokens that leave continue as one more token, their sum weighted by score.
    `merged` (ToMe): with `proportional`, attention to a merged token counts as attention to all tokens in it.
    """

    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]  # from 0
    fuse: bool = False
    proportional: bool = False


class Config(Strict):
    """Architecture, routing and preprocessing of one MoR-ViT; docs/format.md describes the fields."""

    format: Literal["morvit/1", "morvit/2"]
    image_size: Annotated[
        Size | tuple[Size, Size], WrapValidator(_image_size)
    ]  # (height, width) if they differ
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
        problems = [*self._format_problems(), *self._shape_problems(), *self._routing_problems()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _format_problems(self) -> list[str]:
        """Fields that need another format than the one stated."""
        if self.format == GROWN:
            return []
        return [f"format: got {self.format!r}, expected {GROWN!r} with {need}" for need in needs_grown(self)]

    def _shape_problems(self) -> list[str]:
        problems = [*self._patch_problems(), *self._channel_problems()]
        size = list(self.image_shape) if isinstance(self.image_size, tuple) else self.image_size
        if self.num_patches > MAX_PATCHES:
            problems.append(
                f"image_size: got {size}, which is {self.num_patches:,} patches of {self.patch_size} "
                f"pixels, expected at most {MAX_PATCHES:,} patches"
            )
        if self.embed_dim % self.num_heads:
            problems.append(
                f"num_heads: got {self.num_heads}, expected a divisor of embed_dim {self.embed_dim}"
            )
        if self.sharing == "none" and self.num_recursions != 1:
            problems.append(
                f"num_recursions: got {self.num_recursions}, expected 1 with sharing 'none' (no block is repeated)"
            )
        if self.num_steps > MAX_STEPS:
            problems.append(
                f"num_recursions: got {self.num_steps} steps, expected at most {MAX_STEPS} (depth is a uint8)"
            )
        if self.num_layers > MAX_LAYERS:
            problems.append(
                f"cycle_depth: got {self.num_layers} layers in total, expected at most {MAX_LAYERS}"
            )
        if self.labels is not None and len(self.labels) != self.num_classes:
            problems.append(
                f"labels: got {len(self.labels)} names, expected {self.num_classes} (num_classes)"
            )
        resize = self.preprocess.resize
        sides = resize if isinstance(resize, tuple) else (resize or MAX_SIZE,) * 2
        if any(side < edge for side, edge in zip(sides, self.image_shape, strict=True)):
            got = list(resize) if isinstance(resize, tuple) else resize
            problems.append(
                f"preprocess.resize: got {got}, expected at least image_size {size}, "
                "or null to crop without resizing"
            )
        return problems

    def _patch_problems(self) -> list[str]:
        size, patch, stride = self.image_size, self.patch_size, self.patch_stride
        shown = list(size) if isinstance(size, tuple) else size
        if stride is None and any(edge % patch for edge in self.image_shape):
            return [f"image_size: got {shown}, expected a multiple of patch_size {patch}"]
        if min(self.image_shape) < patch:
            return [f"image_size: got {shown}, expected at least patch_size {patch}"]
        if stride is not None and stride >= patch:
            return [
                f"patch_stride: got {stride}, expected less than patch_size {patch}, for patches that overlap; omit "
                "the field if they are side by side"
            ]
        return []

    def _channel_problems(self) -> list[str]:
        """The normalisation has a value for each channel."""
        return [
            f"preprocess.{name}: got {len(values)} values, expected {self.in_channels} (in_channels)"
            for name, values in (("mean", self.preprocess.mean), ("std", self.preprocess.std))
            if len(values) != self.in_channels
        ]

    def _routing_problems(self) -> list[str]:
        problems, record = reduction_problems(self), self.record
        if not self.cls_token and record.routes:
            problems.append(
                f"cls_token: got false, expected true with routing {self.routing!r}: CLS runs every step, so that "
                "each step has a token"
            )
        if not self.cls_token and self.pooling == "cls":
            problems.append(
                "cls_token: got false, expected pooling 'mean' or 'mean_norm': there is no CLS to read"
            )
        if self.register_tokens and record.routes:
            problems.append(
                f"register_tokens: got {self.register_tokens}, expected 0 with routing {self.routing!r}: only plain "
                "ViTs support registers"
            )
        for field, value in record.fixed.items():
            if (got := getattr(self, field)) != value:
                shown = short(list(got) if isinstance(got, tuple) else got)
                wanted = f"{json.dumps(value)} with routing {self.routing!r}{record.why_fixed}"
                problems.append(f"{field}: got {shown}, expected {wanted}")
        if record.routes and record.reads_router and self.router is None:
            problems.append(f"router: got null, expected a router with routing {self.routing!r}")
        if record.has_schedule and record.reduces == (self.reduction is not None):
            problems += schedule_problems(self.capacity, self)
        if self.thresholds is not None:
            problems += self._threshold_problems(self.thresholds)
        return problems

    def _threshold_problems(self, thresholds: tuple[float | None, ...]) -> list[str]:
        """Reasons why these are not the thresholds of a trained model."""
        if "threshold" not in self.record.modes:
            fitting = " or ".join(repr(name) for name, one in ROUTINGS.items() if "threshold" in one.modes)
            return [
                f"thresholds: got {cut(json.dumps(thresholds))} with routing {self.routing!r}, expected null: only "
                f"{fitting} routes by thresholds"
            ]
        if problems := threshold_problems(thresholds, self):
            return problems
        if all(threshold is None for threshold in thresholds):
            return [
                "thresholds: got only null, expected a number for at least one step; omit the field if tokens are "
                "selected by top-k"
            ]
        return unthresholded_problems(self.capacity or (), thresholds, self)

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


def parse_config(text: str | bytes, source: str = "config.json") -> Config:
    """Parse the text of a `config.json`; ConfigError lists every wrong field."""
    fields = parse_json(text, source, what=f"a {FORMAT} configuration")
    stated = fields.get("format") if isinstance(fields, dict) else None
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        kind = GROWN if stated == GROWN else FORMAT
        raise ConfigError(f"{source} is not a {kind} configuration:\n{explain(error)}") from None


def checked(config: Config) -> Config:
    """Return a configuration that training may have changed as it would be read; ConfigError if it could not be."""
    try:
        return Config.model_validate(dict(config), strict=False)  # lists become tuples
    except ValidationError as error:
        raise ConfigError(
            f"the model's configuration is not one of {config.format}:\n{explain(error)}"
        ) from None


def load_config(folder: Path) -> Config:
    """Read `folder/config.json`; ConfigError if it is missing or wrong."""
    path = folder / "config.json"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; a checkpoint is a folder with config.json and "
            "model.safetensors (`morvit-deploy init` writes one)"
        ) from None
    fields = parse_json(text, path, what=f"a {FORMAT} configuration")
    if isinstance(fields, dict) and "format" not in fields:
        raise ConfigError(
            f"{path} is not a {FORMAT} configuration: it has no field `format`; if other code wrote this checkpoint, "
            f"convert it with `morvit-deploy convert {folder} -o DIR`"
        )
    return parse_config(text, source=str(path))
