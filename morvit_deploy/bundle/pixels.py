"""Reads a picture file into the pixels that a graph takes. Pillow and numpy only."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from morvit_deploy.agent.core import running
from morvit_deploy.errors import ImageError
from morvit_deploy.model.config import Preprocess

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB

_CONVERTIBLE = {"RGB", "L", "P", "1", "RGBA", "LA", "PA", "CMYK", "YCbCr"}


def read_image(path: str | Path, preprocess: Preprocess, size: int, *, upscale: bool = False) -> Pixels:
    """Read, convert to RGB, resize, crop the centre: uint8 (size, size, 3).

    Grey and palette images are converted; transparency is dropped. ImageError when the file is no
    image, its mode has no RGB meaning (16-bit, float), or it is smaller than the crop and `upscale` is false.
    """
    image = _open(Path(path))
    if min(image.size) < size and not upscale:
        raise ImageError(
            f"{path} is {image.width}×{image.height} pixels, smaller than the model's {size}×{size} crop; "
            "give a larger picture, or pass --upscale to enlarge small ones"
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


def resize_image(image: Image.Image, preprocess: Preprocess, size: int) -> Image.Image:
    """Resize to [height, width], or the shorter side to `preprocess.resize` and the longer one in proportion."""
    if isinstance(preprocess.resize, tuple):
        height, width = preprocess.resize
    else:
        shorter = min(image.size)
        target = preprocess.resize or max(size, shorter)
        # rounded down, as in training pipelines
        width, height = (target * side // shorter for side in image.size)
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling[preprocess.interpolation.upper()])


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


def _open(path: Path) -> Image.Image:
    if os.path.isdir(path):  # noqa: PTH112  # False for a name that is too long, too
        raise ImageError(f"{path} is a folder, expected an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                file.load()
                image = file.copy()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{path} is not an image that Pillow can read (PNG, JPEG, WebP, BMP, TIFF …)"
        ) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(f"{path} has more pixels than is safe to decode; shrink it first") from None
    except (OSError, SyntaxError, ValueError, RuntimeError, EOFError, MemoryError) as error:
        raise ImageError(f"{path} cannot be decoded: {error}; the file may be cut off") from None
    if image.mode not in _CONVERTIBLE:
        raise ImageError(
            f"{path} has mode {image.mode!r} (no RGB meaning, or not 8 bits a channel); convert it to 8-bit RGB"
        )
    rgb: Image.Image = image if image.mode == "RGB" else image.convert("RGB")
    return rgb
