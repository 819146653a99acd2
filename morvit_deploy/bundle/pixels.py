"""Reads a picture file into the pixels that a graph takes. Pillow and numpy only."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morvit_deploy.agent.core import running
from morvit_deploy.bundle.opening import open_picture
from morvit_deploy.errors import ImageError
from morvit_deploy.model.config import Preprocess

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB

MOST_PIXELS = 2**26  # after resizing, 0.2 GB: what Pillow takes for a safe picture, rounded down


def read_image(
    path: str | Path, preprocess: Preprocess, size: int, *, upscale: bool = False, exif: bool = False
) -> Pixels:
    """Read, convert to RGB, resize, crop the centre: uint8 (size, size, 3).

    Grey, palette and CMYK images are converted; transparency, gamma and color profiles are dropped. The EXIF
    orientation is applied with `exif` only. ImageError when the file is no image or is damaged, its mode has no RGB
    meaning (16-bit, float), or it is smaller than the crop and `upscale` is false.
    """
    image = open_picture(Path(path), exif=exif)
    if min(image.size) < size and not upscale:
        raise ImageError(
            f"{path} is {image.width}×{image.height} pixels, smaller than the model's {size}×{size} crop; "
            "give a larger picture, or pass --upscale to enlarge small ones"
        )
    width, height = resized(image.size, preprocess, size)
    if width * height > max(MOST_PIXELS, image.width * image.height):  # a long strip whose shorter side grows
        raise ImageError(
            f"{path} is {image.width}×{image.height} pixels and becomes {width}×{height}, too much to resize; crop it"
        )
    try:
        return np.asarray(prepare(image, preprocess, size), dtype=np.uint8)
    except MemoryError:
        raise ImageError(
            f"{path} is {image.width}×{image.height} pixels, too much to resize; crop it"
        ) from None


def prepare(image: Image.Image, preprocess: Preprocess, size: int) -> Image.Image:
    """Resize and crop to size × size pixels."""
    return crop_centre(resize_image(image, preprocess, size), size, preprocess)


def resized(image_size: tuple[int, int], preprocess: Preprocess, size: int) -> tuple[int, int]:
    """Width and height to resize to: [height, width], or the shorter side and the longer one in proportion."""
    if isinstance(preprocess.resize, tuple):
        height, width = preprocess.resize
    else:
        shorter = min(image_size)
        target = preprocess.resize or max(size, shorter)
        width, height = (target * side // shorter for side in image_size)  # rounded down, as in training
    return width, height


def resize_image(image: Image.Image, preprocess: Preprocess, size: int) -> Image.Image:
    """Resize as `preprocess.resize` says."""
    new = resized(image.size, preprocess, size)
    if new == image.size:
        return image
    return image.resize(new, Image.Resampling[preprocess.interpolation.upper()])


def crop_centre(image: Image.Image, size: int, preprocess: Preprocess) -> Image.Image:
    """The central size × size pixels; half of an odd margin is rounded as `preprocess.crop_rounding` says."""
    margins = (image.width - size, image.height - size)
    left, top = (m // 2 if preprocess.crop_rounding == "down" else round(m / 2) for m in margins)
    return image.crop((left, top, left + size, top + size))


def normalise(pixels: Pixels, preprocess: Preprocess) -> NDArray[np.float32]:
    """uint8 (batch, height, width, 3) to normalised float32 (batch, 3, height, width)."""
    return running.normalise(pixels, preprocess.mean, preprocess.std)


def synthetic_images(count: int, size: int, seed: int = 0) -> Pixels:
    """Smooth random pictures, uint8 (count, size, size, 3): for parity where the user gave no images.

    Low frequencies make neighbouring tokens alike, as in photographs. Never used for calibration.
    """
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (rng.integers(4, 9), rng.integers(4, 9), 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth, dtype=np.int16) + rng.integers(-12, 13, (size, size, 3))
        pictures.append(noisy.clip(0, 255).astype(np.uint8))
    return np.stack(pictures)


def digest(pixels: Pixels) -> str:
    """Short sha256 of pixel data, so that a report can say which inputs it saw."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]
