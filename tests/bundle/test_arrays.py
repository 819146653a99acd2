"""`.npy` pictures: any number of channels, prepared as picture files are; what cannot be one is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_models import make_config

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.pixels import Pixels, read_image
from morvit_deploy.errors import ImageError
from morvit_deploy.model.config import Preprocess


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def of_channels(count: int, **changes: Any) -> Preprocess:
    fields = {"mean": (0.5,) * count, "std": (0.5,) * count, "resize": None, "interpolation": "bicubic"}
    return Preprocess(**(fields | changes))


def saved(path: Path, array: NDArray[Any]) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 13, 64])
def test_pixels_are_the_arrays(channels: int, tmp_path: Path) -> None:
    pixels = noise(32, 32, channels)
    for array in (pixels, (pixels / 255).astype(np.float32), (pixels / 255).astype(">f4")):
        for order in "CF":
            path = saved(tmp_path / "a.NPY.npy", np.asarray(array, order=order))  # type: ignore[call-overload]
            read = read_image(path, of_channels(channels), 32)
            assert read.dtype == np.uint8 and np.array_equal(read, pixels)


@pytest.mark.parametrize("resize", [36, (40, 33)])
def test_channels_are_resized_and_cropped_as_in_a_picture_file(resize: Any, tmp_path: Path) -> None:
    pixels = noise(50, 71, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    saved(tmp_path / "a.npy", np.concatenate([pixels, pixels[..., ::-1]], axis=2))
    expected = read_image(tmp_path / "a.png", of_channels(3, resize=resize), 32)
    found = read_image(tmp_path / "a.npy", of_channels(6, resize=resize), 32)
    assert np.array_equal(found, np.concatenate([expected, expected[..., ::-1]], axis=2))


def test_a_small_array_is_enlarged_when_asked(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", noise(20, 40, 2))
    with pytest.raises(ImageError, match=r"a\.npy is 40×20 pixels, smaller than the model's 32×32 crop"):
        read_image(path, of_channels(2), 32)
    assert read_image(path, of_channels(2), 32, upscale=True).shape == (32, 32, 2)


def test_a_folder_may_hold_arrays(tmp_path: Path) -> None:
    config = make_config(in_channels=2, preprocess={"mean": [0.5] * 2, "std": [0.5] * 2})
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    saved(tmp_path / "0" / "a.npy", noise(36, 36, 2))
    saved(tmp_path / "1" / "b.npy", noise(40, 36, 2))
    folder = open_images(tmp_path, config)
    assert folder.labels == [0, 1] and folder.all().shape == (2, 32, 32, 2)


BAD: dict[str, tuple[NDArray[Any], str]] = {
    "channels": (noise(32, 32, 3), r"has shape \[32, 32, 3\], expected \(height, width, 2\)$"),
    "channels first": (noise(2, 32, 32), r"expected \(height, width, 2\); give array\.transpose\(1, 2, 0\)"),
    "no channels": (noise(32, 32), r"has shape \[32, 32\], expected"),
    "a batch": (noise(1, 32, 32, 2), r"has shape \[1, 32, 32, 2\], expected"),
    "empty": (noise(0, 32, 2), r"a\.npy"),
    "float64": (np.zeros((32, 32, 2)), r"numbers of type float64, expected uint8, or float32 from 0 to 1"),
    "float16": (np.zeros((32, 32, 2), np.float16), "numbers of type float16"),
    "int8": (np.zeros((32, 32, 2), np.int8), "numbers of type int8"),
    "bool": (np.zeros((32, 32, 2), bool), "numbers of type bool"),
    "NaN": (np.full((32, 32, 2), np.nan, np.float32), "holds NaN or infinity"),
    "infinity": (np.full((32, 32, 2), np.inf, np.float32), "holds NaN or infinity"),
    "0 to 255": (np.full((32, 32, 2), 255, np.float32), "from 255 to 255.*; divide it by 255"),
    "negative": (np.full((32, 32, 2), -1, np.float32), "from -1 to -1.*; scale it as in training"),
}


@pytest.mark.parametrize(("array", "words"), BAD.values(), ids=BAD)
def test_another_array_is_refused(array: NDArray[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=words):
        read_image(saved(tmp_path / "a.npy", array), of_channels(2), 32)


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([Bomb(tmp_path / "made")], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"a\.npy is no array of numbers .*without objects"):
        read_image(tmp_path / "a.npy", of_channels(2), 32)
    assert not (tmp_path / "made").exists()


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", noise(32, 32, 2))
    content = path.read_bytes()
    huge = content.replace(b"(32, 32, 2)", b"(9999999, 99999, 2)")
    for damaged in (content[:100], content[:40], content[:-1], b"x" * 200, huge, b"\x93NUMPY\x09\x00"):
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=r"a\.npy is no array of numbers that can be read"):
            read_image(path, of_channels(2), 32)
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="it is empty"):
        read_image(path, of_channels(2), 32)
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "b.npy", of_channels(2), 32)
