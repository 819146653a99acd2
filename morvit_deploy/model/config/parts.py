"""What a configuration is made of: its numbers, the router, the preprocessing, and where tokens leave."""

from __future__ import annotations

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

from morvit_deploy.strict_fields import Finite, Positive, Strict

MAX_CHANNELS = 64
MAX_SIZE = 1_000_000  # a larger size is a typing error
MAX_COLOR = 10.0  # of mean and std; those of images in [0, 1] are near 0.5, those of 0 … 255 near 120
FURTHEST = float(np.finfo(np.float32).max)

Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Threshold = Annotated[float, Field(ge=-FURTHEST, le=FURTHEST)]  # a router logit: float32 in the graph


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


ImageSize = Annotated[Size | tuple[Size, Size], WrapValidator(_image_size)]


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
