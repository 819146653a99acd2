"""Reads a picture file into the pixels that a graph takes. Pillow and numpy only."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morvit_deploy.agent.core import running
from morvit_deploy.bundle.arrays import is_array, open_planes
from morvit_deploy.bundle.opening import open_picture
from morvit_deploy.errors import ImageError
from morvit_deploy.model.config import Config, Preprocess

Pixels = NDArray[np.uint8]  # (height, width, channels): gray, RGB or RGBA
Size = int | tuple[int, int]  # of the crop: a square, or (height, width)

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels of a model -> Pillow's mode

MOST_PIXELS = 2**26  # after resizing, 0.2 GB: what Pillow takes for a safe picture, rounded down


def read_image(
    path: str | Path, preprocess: Preprocess, size: Size, *, upscale: bool = False, exif: bool = False
) -> Pixels:
    """Read, convert to the model's channels, resize, crop the centre: uint8 (height, width, channels).

    `preprocess` has a mean for each channel: one is gray, three are RGB, four are RGBA. Other images are converted;
    gamma and color profiles are dropped, and so is transparency unless it is a channel. The EXIF orientation is
    applied with `exif` only. A `.npy` file holds the model's channels as they are.

    ImageError when the file is no image or is damaged, its mode has no RGB meaning (16-bit, float), it is smaller
    than the crop and `upscale` is false, or it does not have the model's channels.
    """
    planes = _planes(Path(path), len(preprocess.mean), exif=exif)
    image = planes[0]
    high, wide = edges(size)
    if (image.height < high or image.width < wide) and not upscale:
        raise ImageError(
            f"{path} is {image.width}×{image.height} pixels, smaller than the model's {wide}×{high} crop; "
            "give a larger picture, or pass --upscale to enlarge small ones"
        )
    width, height = resized(image.size, preprocess, size)
    if width * height > max(MOST_PIXELS, image.width * image.height):  # a long strip whose shorter side grows
        raise ImageError(
            f"{path} is {image.width}×{image.height} pixels and becomes {width}×{height}, too much to resize; crop it"
        )
    try:
        return np.dstack([np.asarray(prepare(plane, preprocess, size), dtype=np.uint8) for plane in planes])
    except MemoryError:
        raise ImageError(
            f"{path} is {image.width}×{image.height} pixels, too much to resize; crop it"
        ) from None


def _planes(path: Path, channels: int, *, exif: bool) -> list[Image.Image]:
    """What is resized: a picture, or each channel of an array."""
    if is_array(path):
        return open_planes(path, channels)
    return [open_picture(path, mode=mode_of(channels), exif=exif)]


def edges(size: Size) -> tuple[int, int]:
    """Height and width of a crop."""
    return size if isinstance(size, tuple) else (size, size)


def mode_of(channels: int) -> str:
    """Pillow's mode of pictures with so many channels; ImageError if no picture has them."""
    if channels not in MODES:
        raise ImageError(
            f"the model takes images of {channels} channels, and picture files have 1, 3 or 4; give .npy files "
            "(height, width, channels), uint8 or float32 from 0 to 1"
        )
    return MODES[channels]


def prepare(image: Image.Image, preprocess: Preprocess, size: Size) -> Image.Image:
    """Resize and crop to the pixels of `size`."""
    return crop_centre(resize_image(image, preprocess, size), size, preprocess)


def resized(image_size: tuple[int, int], preprocess: Preprocess, size: Size) -> tuple[int, int]:
    """Width and height to resize to: [height, width], or the shorter side and the longer one in proportion."""
    if isinstance(preprocess.resize, tuple):
        height, width = preprocess.resize
        return width, height
    reached, target = min(image_size), preprocess.resize
    if target is None:  # only enlarge what is smaller than the crop
        pairs = zip(image_size, edges(size)[::-1], strict=True)
        reached, target = max(pairs, key=lambda pair: max(1.0, pair[1] / pair[0]))
        if target <= reached:
            return image_size
    width, height = (target * side // reached for side in image_size)  # rounded down, as in training
    return width, height


def resize_image(image: Image.Image, preprocess: Preprocess, size: Size) -> Image.Image:
    """Resize as `preprocess.resize` says."""
    new = resized(image.size, preprocess, size)
    if new == image.size:
        return image
    return image.resize(new, Image.Resampling[preprocess.interpolation.upper()])


def crop_centre(image: Image.Image, size: Size, preprocess: Preprocess) -> Image.Image:
    """The central pixels; half of an odd margin is rounded as `preprocess.crop_rounding` says."""
    high, wide = edges(size)
    margins = (image.width - wide, image.height - high)
    left, top = (m // 2 if preprocess.crop_rounding == "down" else round(m / 2) for m in margins)
    return image.crop((left, top, left + wide, top + high))


def normalise(pixels: Pixels, preprocess: Preprocess) -> NDArray[np.float32]:
    """uint8 (batch, height, width, channels) to normalised float32 (batch, channels, height, width)."""
    return running.normalise(pixels, preprocess.mean, preprocess.std)


def synthetic_images(count: int, size: Size, seed: int = 0, channels: int = 3) -> Pixels:
    """Smooth random pictures, uint8 (count, height, width, channels): for parity where the user gave no images.

    Low frequencies make neighbouring tokens alike, as in photographs. Never used for calibration.
    """
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (rng.integers(4, 9), rng.integers(4, 9), channels), dtype=np.uint8)
        smooth = _enlarged(coarse, edges(size))
        noisy = smooth + rng.integers(-12, 13, smooth.shape)
        pictures.append(noisy.clip(0, 255).astype(np.uint8))
    return np.stack(pictures)


def synthetic_for(config: Config, count: int, seed: int = 0) -> Pixels:
    """Synthetic pictures of a model's own size and channels."""
    return synthetic_images(count, config.image_size, seed, config.in_channels)


def _enlarged(coarse: Pixels, size: tuple[int, int]) -> NDArray[np.int16]:
    """Resize uint8 (rows, columns, channels) to (height, width, channels), each channel by itself."""
    planes = [
        Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC)
        for plane in np.moveaxis(coarse, 2, 0)
    ]
    return np.stack([np.asarray(plane, dtype=np.int16) for plane in planes], axis=2)


def digest(pixels: Pixels) -> str:
    """Short sha256 of pixel data, so that a report can say which inputs it saw."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]
