"""Reads a picture from a `.npy` file, which may have any number of channels. numpy and Pillow only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morvit_deploy.bundle.opening import why_not_readable
from morvit_deploy.errors import ImageError

SUFFIX = ".npy"
_WANTED = "uint8, or float32 from 0 to 1"


def is_array(path: Path) -> bool:
    """Is it a file of this kind, by its name?"""
    return path.suffix.lower() == SUFFIX


def open_planes(path: Path, channels: int) -> list[Image.Image]:
    """The channels of an array (height, width, channels), each as a gray picture of 8 bits.

    uint8 is taken as it is; float32 from 0 to 1 is multiplied by 255 and rounded. ImageError when the file is no
    array, holds objects, or has another shape, type or range.
    """
    array = _checked(path, _loaded(path), channels)
    if array.dtype != np.uint8:
        array = (array.astype(np.float64) * 255).round().astype(np.uint8)
    return [Image.fromarray(np.ascontiguousarray(array[..., channel])) for channel in range(channels)]


def _loaded(path: Path) -> NDArray[Any]:
    """The array, mapped from the file: a header that promises more than there is allocates nothing."""
    if (reason := why_not_readable(path)) is not None:
        raise ImageError(f"{path} {reason}")
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, SyntaxError, TypeError, OverflowError, MemoryError) as error:
        raise ImageError(
            f"{path} is no array of numbers that can be read: {error}; write it with numpy.save, without objects"
        ) from None
    return array


def _checked(path: Path, array: NDArray[Any], channels: int) -> NDArray[Any]:
    shape = list(array.shape)
    if array.ndim != 3 or array.shape[2] != channels or not array.size:
        channels_first = array.ndim == 3 and array.shape[0] == channels
        advice = "; give array.transpose(1, 2, 0)" if channels_first else ""
        raise ImageError(f"{path} has shape {shape}, expected (height, width, {channels}){advice}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.newbyteorder("=") != np.float32:
        raise ImageError(f"{path} holds numbers of type {array.dtype}, expected {_WANTED}")
    if not np.isfinite(array).all():
        raise ImageError(f"{path} holds NaN or infinity, expected {_WANTED}; fill the gaps first")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        advice = "divide it by 255, or give uint8" if low >= 0 and high <= 255 else "scale it as in training"
        raise ImageError(f"{path} has values from {low:g} to {high:g}, expected {_WANTED}; {advice}")
    return array
