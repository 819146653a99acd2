"""From a picture file to pixels: modes, damage, and the crop's geometry computed by hand."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from third_party import third_party
from tiny_models import make_config

from morvit_deploy.bundle.pixels import (
    crop_centre,
    digest,
    normalise,
    read_image,
    resize_image,
    synthetic_images,
)
from morvit_deploy.errors import ImageError
from morvit_deploy.model.config import Preprocess

AS_IT_IS = make_config(preprocess={"resize": None}).preprocess


def resizing(resize: int | None, interpolation: str = "bicubic") -> Preprocess:
    return make_config(image_size=8, capacity=[1, 1, 1],
                       preprocess={"resize": resize, "interpolation": interpolation}).preprocess  # fmt: skip


def noise(height: int, width: int, *channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def test_rgb_comes_back_as_it_is(tmp_path: Path) -> None:
    picture = noise(32, 32, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png", AS_IT_IS, 32)
    assert read.dtype == np.uint8
    assert np.array_equal(read, picture)


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = noise(32, 32)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", AS_IT_IS, 32), np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white_is_repeated(tmp_path: Path) -> None:
    Image.fromarray(noise(32, 32)).convert("1").save(tmp_path / "a.png")
    assert set(np.unique(read_image(tmp_path / "a.png", AS_IT_IS, 32))) == {0, 255}


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(noise(32, 32, 3)).quantize(16)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", AS_IT_IS, 32), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("channels", [4, 2], ids=["RGBA", "LA"])
def test_transparency_is_dropped_as_training_loaders_do(tmp_path: Path, channels: int) -> None:
    picture = noise(32, 32, channels)
    Image.fromarray(picture).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png", AS_IT_IS, 32)
    assert np.array_equal(read, np.broadcast_to(picture[..., :-1], read.shape))


def test_the_orientation_tag_is_not_applied(tmp_path: Path) -> None:
    picture = noise(32, 32, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", AS_IT_IS, 32), picture)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))  # red
    image.save(tmp_path / "a.jpg")
    middle = read_image(tmp_path / "a.jpg", AS_IT_IS, 32)[16, 16].astype(int)
    assert middle[0] > 200 and middle[1:].max() < 60


@pytest.mark.parametrize("mode", ["I;16", "F", "I"])
def test_more_than_eight_bits_is_refused(tmp_path: Path, mode: str) -> None:
    dtype = {"I;16": np.uint16, "F": np.float32, "I": np.int32}[mode]
    Image.fromarray(noise(32, 32).astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"not 8 bits a channel.*convert it"):
        read_image(tmp_path / "a.tif", AS_IT_IS, 32)


def of_channels(*values: float, **changes: Any) -> Preprocess:
    """Without resizing, a mean for each channel."""
    fields = {"mean": values, "std": values, "resize": None, "interpolation": "bicubic"}
    return Preprocess(**(fields | changes))


def test_channels_are_gray_rgb_or_rgba(tmp_path: Path) -> None:
    rgba = noise(32, 40, 4)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    gray = read_image(tmp_path / "a.png", of_channels(0.5), (32, 40))
    assert gray.shape == (32, 40, 1)
    assert np.array_equal(gray[..., 0], np.asarray(Image.fromarray(rgba).convert("L")))
    assert np.array_equal(read_image(tmp_path / "a.png", of_channels(0.5, 0.5, 0.5), (32, 40)), rgba[..., :3])
    assert np.array_equal(read_image(tmp_path / "a.png", of_channels(*[0.5] * 4), (32, 40)), rgba)


def test_other_channels_are_refused_with_what_to_do(tmp_path: Path) -> None:
    Image.fromarray(noise(32, 32, 3)).save(tmp_path / "a.png")
    with pytest.raises(
        ImageError, match=r"images of 5 channels, and picture files have 1, 3 or 4; give .npy"
    ):
        read_image(tmp_path / "a.png", of_channels(*[0.5] * 5), 32)


@pytest.mark.parametrize("side", [(64, 48), (40, 90), (33, 70)])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_resizing_is_that_of_timm(tmp_path: Path, mode: str, side: tuple[int, int]) -> None:
    """timm's evaluation transform with crop_mode center and squash."""
    transforms = third_party("timm.data")
    picture = Image.fromarray(noise(*side, 3))
    picture.save(tmp_path / "a.png")
    made = transforms.create_transform(
        (3, 32, 32),
        interpolation="bicubic",
        crop_pct=0.9,
        crop_mode=mode,
        normalize=False,
        mean=(0,) * 3,
        std=(1,) * 3,
    )
    expected = np.asarray(made(picture)).transpose(1, 2, 0)
    expected = expected if expected.dtype == np.uint8 else np.round(expected * 255)
    resize = (35, 35) if mode == "squash" else 35
    found = read_image(tmp_path / "a.png", of_channels(0.5, 0.5, 0.5, resize=resize), 32)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("crop", [32, 30], ids=["no margin", "a margin"])
def test_squash_to_an_oblong_is_that_of_timm(tmp_path: Path, crop: int, channels: int) -> None:
    transforms = third_party("timm.data")
    picture = Image.fromarray(noise(70, 80, 3)).convert("RGB" if channels == 3 else "L")
    picture.save(tmp_path / "a.png")
    made = transforms.create_transform(
        (channels, crop, 2 * crop), interpolation="bicubic", crop_pct=crop / 32, crop_mode="squash",
        normalize=False, mean=(0,) * channels, std=(1,) * channels,
    )  # fmt: skip
    expected = np.asarray(made(picture)).transpose(1, 2, 0)
    expected = expected if expected.dtype == np.uint8 else np.round(expected * 255)
    found = read_image(tmp_path / "a.png", of_channels(*[0.5] * channels, resize=(32, 64)), (crop, 2 * crop))
    assert np.array_equal(found, expected)


def test_the_crop_of_an_oblong_is_central(tmp_path: Path) -> None:
    pixels = noise(40, 50, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", of_channels(0.5, 0.5, 0.5), (20, 40))
    assert np.array_equal(found, pixels[10:30, 5:45])
    with pytest.raises(ImageError, match="smaller than the model's 60×20 crop"):
        read_image(tmp_path / "a.png", of_channels(0.5, 0.5, 0.5), (20, 60))
    enlarged = read_image(tmp_path / "a.png", of_channels(0.5, 0.5, 0.5), (20, 60), upscale=True)
    whole = Image.fromarray(pixels).resize((60, 48), Image.Resampling.BICUBIC)
    assert np.array_equal(enlarged, np.asarray(whole)[14:34])


def test_synthetic_pictures_have_the_models_shape() -> None:
    assert synthetic_images(2, (20, 30), channels=5).shape == (2, 20, 30, 5)
    square = synthetic_images(1, 24, seed=7)
    assert np.array_equal(square, synthetic_images(1, (24, 24), seed=7))


def png_16_bit_rgb() -> bytes:
    """Pillow cannot write one: 32 × 32, three channels of 16 bits."""
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(range(192))) * 32)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_16_bit_colour_png_is_read_by_its_high_bytes_or_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_16_bit_rgb())
    read = read_image(tmp_path / "a.png", AS_IT_IS, 32)
    assert np.array_equal(read[0, :, 0], np.arange(0, 192, 6))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(64, 64, 3)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ImageError, match=str(path.name)):
        read_image(path, AS_IT_IS, 32)


def test_text_with_a_pictures_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("this is no picture")
    with pytest.raises(ImageError, match="is not an image"):
        read_image(tmp_path / "a.png", AS_IT_IS, 32)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "a.png", AS_IT_IS, 32)
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path, AS_IT_IS, 32)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    content = bytearray(png_16_bit_rgb())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match="more pixels than is safe"):
        read_image(tmp_path / "a.png", AS_IT_IS, 32)


@pytest.mark.parametrize("shape", [(31, 40), (40, 31), (8, 8)])
def test_a_picture_smaller_than_the_crop_is_refused_or_enlarged(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    Image.fromarray(noise(*shape, 3)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=f"{shape[1]}×{shape[0]} pixels, smaller than the model's 32×32"):
        read_image(tmp_path / "a.png", AS_IT_IS, 32)
    assert read_image(tmp_path / "a.png", AS_IT_IS, 32, upscale=True).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((10, 8), slice(1, 9), slice(0, 8)),
        ((8, 13), slice(0, 8), slice(2, 10)),  # 2.5 rounds to the even 2, as torchvision's center_crop
        ((11, 15), slice(2, 10), slice(4, 12)),  # 1.5 -> 2, 3.5 -> 4
        ((9, 9), slice(0, 8), slice(0, 8)),  # 0.5 -> 0
    ],
)
def test_the_centre_is_cropped(shape: tuple[int, int], rows: slice, columns: slice) -> None:
    picture = noise(*shape, 3)
    cropped = np.asarray(crop_centre(Image.fromarray(picture), 8, AS_IT_IS))
    assert np.array_equal(cropped, picture[rows, columns])


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((100, 50), (20, 10)),
        ((50, 100), (10, 20)),
        ((33, 47), (10, 14)),
        ((10, 99), (10, 99)),
        ((7, 7), (10, 10)),
    ],
)
def test_the_shorter_side_is_resized_and_the_longer_truncated(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert resize_image(Image.new("RGB", size), resizing(10), 8).size == resized


def test_a_picture_is_squashed_to_height_and_width(tmp_path: Path) -> None:
    """Nearest, by hand: 16 × 24 becomes 8 × 8, every second row and every third column."""
    picture = noise(16, 24, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    squashing = AS_IT_IS.model_copy(update={"resize": (8, 8), "interpolation": "nearest"})
    assert np.array_equal(read_image(tmp_path / "a.png", squashing, 8), picture[1::2, 1::3])
    assert resize_image(
        Image.new("RGB", (50, 20)), AS_IT_IS.model_copy(update={"resize": (9, 11)}), 8
    ).size == (11, 9)


@pytest.mark.parametrize("margin", range(9))
def test_half_of_an_odd_margin_is_rounded_as_asked(margin: int) -> None:
    picture = np.arange(8 + margin, dtype=np.uint8)[None, :].repeat(8, axis=0)
    down = AS_IT_IS.model_copy(update={"crop_rounding": "down"})
    firsts = [np.asarray(crop_centre(Image.fromarray(picture), 8, one))[0, 0] for one in (AS_IT_IS, down)]
    assert firsts == [round(margin / 2), margin // 2]
    assert (firsts[0] != firsts[1]) == (margin % 4 == 3)


def test_nearest_resize_and_crop_by_hand(tmp_path: Path) -> None:
    """24 × 32 halved is 12 × 16; nearest takes pixel 2i + 1; the crop of 8 starts at row 2 and column 4."""
    picture = noise(24, 32, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png", resizing(12, "nearest"), 8)
    rows, columns = 2 * np.arange(2, 10) + 1, 2 * np.arange(4, 12) + 1
    assert np.array_equal(read, picture[np.ix_(rows, columns)])


def test_box_resize_is_the_mean_of_each_square(tmp_path: Path) -> None:
    picture = noise(16, 16, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    mean = picture.reshape(8, 2, 8, 2, 3).astype(float).mean(axis=(1, 3))
    read = read_image(tmp_path / "a.png", resizing(8, "box"), 8)
    assert np.abs(read - mean).max() <= 1  # two roundings, one for each axis


def test_without_resize_a_large_picture_is_only_cropped(tmp_path: Path) -> None:
    picture = noise(40, 64, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", AS_IT_IS, 32), picture[4:36, 16:48])


def test_normalise_by_hand() -> None:
    preprocess = make_config().preprocess
    pixels = noise(4, 5, 3)[None]
    normal = normalise(pixels, preprocess)
    assert (normal.shape, normal.dtype, normal.flags.c_contiguous) == ((1, 3, 4, 5), np.float32, True)
    for c in range(3):
        expected = (pixels[0, 2, 3, c] / 255 - preprocess.mean[c]) / preprocess.std[c]
        assert normal[0, c, 2, 3] == np.float32(expected)


def test_all_of_a_batch_is_normalised_as_torch_does() -> None:
    preprocess = make_config().preprocess
    pixels = noise(3, 6, 5, 3)
    mean, std = (torch.tensor(one, dtype=torch.float64) for one in (preprocess.mean, preprocess.std))
    expected = (
        (torch.from_numpy(pixels).double().div(255).sub(mean).div(std)).permute(0, 3, 1, 2).float().numpy()
    )
    assert np.array_equal(normalise(pixels, preprocess), expected)


@pytest.mark.parametrize("shape", [(50, 75), (75, 50), (41, 61)], ids=str)
def test_a_picture_is_read_as_pillow_resizes_and_crops(tmp_path: Path, shape: tuple[int, int]) -> None:
    picture = noise(*shape, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    height, width = (36 * side // min(shape) for side in shape)
    resized = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    top, left = round((height - 32) / 2), round((width - 32) / 2)
    read = read_image(tmp_path / "a.png", make_config().preprocess, 32)
    assert np.array_equal(read, resized[top : top + 32, left : left + 32])


def test_synthetic_pictures_are_seeded_and_smooth() -> None:
    a, b, c = synthetic_images(3, 32), synthetic_images(3, 32), synthetic_images(3, 32, seed=1)
    assert digest(a) == digest(b) != digest(c)
    assert a.shape == (3, 32, 32, 3) and a.dtype == np.uint8
    steps = np.abs(np.diff(a.astype(int), axis=1)).mean()
    assert steps < np.abs(a.astype(int) - a.mean()).mean(), "neighbours should be more alike than strangers"
