"""Which files are opened as pictures, and how: formats, damage, orientation, frames, against Pillow used by hand."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from morvit_deploy.bundle.opening import is_animated, is_turned, open_picture
from morvit_deploy.bundle.pixels import read_image
from morvit_deploy.bundle.png import missing_share
from morvit_deploy.errors import ImageError
from morvit_deploy.model.config import Preprocess

AS_IT_IS = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize=None, interpolation="bicubic")
RESIZED = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize=256, interpolation="bicubic")


def noise(height: int, width: int, *channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def png(width: int, height: int, rows: bytes, *more: tuple[bytes, bytes], interlaced: int = 0) -> bytes:
    """An RGB PNG file of raw rows, each with its filter; `more` chunks come before them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    data = zlib.compress(rows)
    parts = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    chunks = [(b"IHDR", header), *more, *((b"IDAT", part) for part in parts), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


# --- what is not opened


@pytest.mark.parametrize("suffix", ["png", "jpg", "eps"])
def test_postscript_never_starts_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Pillow would run Ghostscript on it, whatever its suffix."""
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **_: started.append(given))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ImageError, match=r"is not an image that can be read .*it is EPS, .*convert it"):
        open_picture(path)
    assert not is_turned(path) and started == []


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", "AVIF"),
        (b"%PDF-1.4\n", "PDF"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(start + bytes(100))
    with pytest.raises(ImageError, match=f"it is {name}: convert it to PNG or JPEG"):
        open_picture(tmp_path / "a.jpg")


def test_formats_without_a_program_that_are_not_listed_are_refused(tmp_path: Path) -> None:
    """The suffix decides what a folder holds, so both tables are one."""
    Image.fromarray(noise(32, 32, 3)).save(tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is not an image that can be read"):
        open_picture(tmp_path / "a.png")


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    picture = noise(32, 32, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.jpg")), picture)


def test_pipes_devices_and_empty_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to("gone")
    (tmp_path / "circle.png").symlink_to("circle.png")
    for name, message in (
        ("pipe", "is a pipe, a socket or a device, expected an image file"),
        ("device", "is a pipe, a socket or a device"),
        ("empty", r"is empty \(0 bytes\); copy it again"),
        ("link", "is a link to a file that does not exist"),
        ("circle", "cannot be opened: Too many levels of symbolic links"),
        ("a" * 300, "cannot be opened: File name too long"),
        ("a\0b", "cannot be opened: .*null byte"),
    ):
        with pytest.raises(ImageError, match=message):
            open_picture(tmp_path / f"{name}.png")


# --- what is cut off


def test_a_png_file_without_all_rows_is_refused(tmp_path: Path) -> None:
    """Its stream ends properly, so Pillow returns black for the rest."""
    row = b"\0" + bytes([200]) * 3 * 40
    (tmp_path / "a.png").write_bytes(png(40, 100_000, 25 * row))
    with pytest.raises(
        ImageError, match=r"a.png cannot be decoded: 100.0% of its rows are missing; .*cut off"
    ):
        open_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png(40, 40, 39 * row))
    with pytest.raises(ImageError, match=r"2.5% of its rows are missing"):
        open_picture(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(png(40, 40, 40 * row))
    assert open_picture(tmp_path / "c.png").size == (40, 40)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (33, 5)])
def test_whole_png_files_of_any_mode_are_whole(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    Image.fromarray(noise(size[1], size[0], 3)).convert(mode).save(tmp_path / "a.png")
    assert missing_share(tmp_path / "a.png") == 0


def interlaced_rows(picture: NDArray[np.uint8]) -> bytes:
    """The seven passes of the PNG specification, from its picture of them."""
    pattern = np.array([[1, 6, 4, 6, 2, 6, 4, 6], [7] * 8, [5, 6] * 4, [7] * 8,
                        [3, 6, 4, 6, 3, 6, 4, 6], [7] * 8, [5, 6] * 4, [7] * 8])  # fmt: skip
    height, width = picture.shape[:2]
    tiled = np.tile(pattern, (height // 8 + 1, width // 8 + 1))[:height, :width]
    rows = []
    for number in range(1, 8):
        rows += [
            b"\0" + picture[y][tiled[y] == number].tobytes()
            for y in range(height)
            if (tiled[y] == number).any()
        ]
    return b"".join(rows)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (8, 8), (13, 21)])
def test_interlaced_png_files(tmp_path: Path, shape: tuple[int, int]) -> None:
    picture = noise(*shape, 3)
    rows = interlaced_rows(picture)
    (tmp_path / "a.png").write_bytes(png(shape[1], shape[0], rows, interlaced=1))
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), picture)
    (tmp_path / "b.png").write_bytes(png(shape[1], shape[0], rows[:-1], interlaced=1))
    assert missing_share(tmp_path / "b.png") > 0


@pytest.mark.parametrize("cut", [1, 10, 300])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused(tmp_path: Path, cut: int, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(noise(64, 64, 3)).save(path, progressive=progressive)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ImageError, match="may be cut off"):
        open_picture(path)


# --- orientation and frames


@pytest.mark.parametrize("orientation", range(10))
def test_the_exif_orientation_is_applied_where_asked(tmp_path: Path, orientation: int) -> None:
    """By the table of the EXIF standard: where row 0 and column 0 of the file are in the upright picture."""
    stored = noise(4, 6, 3)
    turns = {
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), stored)
    upright = np.asarray(open_picture(tmp_path / "a.png", exif=True))
    assert np.array_equal(upright, turns.get(orientation, stored))
    assert is_turned(tmp_path / "a.png") == (orientation in turns)


def test_broken_exif_data_does_not_lose_the_picture(tmp_path: Path) -> None:
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff\0\0")
    assert open_picture(tmp_path / "a.jpg").size == (8, 8)
    assert not is_turned(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    red, _, blue = np.asarray(open_picture(tmp_path / f"a.{suffix}"))[4, 4].tolist()
    assert red > 250 and blue < 5
    assert is_animated(tmp_path / f"a.{suffix}")
    frames[0].save(tmp_path / f"b.{suffix}")
    assert not is_animated(tmp_path / f"b.{suffix}")


# --- modes, by hand


def test_a_transparent_palette_entry_keeps_its_color(tmp_path: Path) -> None:
    image = Image.fromarray(noise(8, 8, 3)).quantize(4)
    image.save(tmp_path / "a.png", transparency=0)
    palette = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), palette[np.asarray(image)])


def test_gamma_and_profiles_are_not_applied(tmp_path: Path) -> None:
    """As in training pipelines, which read the numbers of the file."""
    picture = noise(8, 8, 3)
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    gamma = (b"gAMA", struct.pack(">I", 220_000))
    (tmp_path / "a.png").write_bytes(png(8, 8, rows, gamma, (b"iCCP", b"x\0\0" + zlib.compress(b"profile"))))
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png")), picture)


def test_adobe_cmyk_is_inverted_as_pillow_does(tmp_path: Path) -> None:
    ink = noise(16, 16, 4)
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    key = 255 - ink.astype(int)
    expected = key[..., :3] * key[..., 3:] / 255
    assert np.abs(np.asarray(open_picture(tmp_path / "a.tif")) - expected).max() <= 1  # rounded


# --- extreme sizes


def test_one_pixel_is_enlarged_where_asked(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="1×1 pixels, smaller than"):
        read_image(tmp_path / "a.png", RESIZED, 224)
    assert np.unique(read_image(tmp_path / "a.png", RESIZED, 224, upscale=True)).tolist() == [7, 8, 9]


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1)])
def test_a_strip_is_refused_before_it_fills_the_memory(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="smaller than"):
        read_image(tmp_path / "a.png", RESIZED, 224)
    with pytest.raises(ImageError, match=r"becomes (256×2560000|2560000×256), too much to resize; crop it"):
        read_image(tmp_path / "a.png", RESIZED, 224, upscale=True)
    small = Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3, resize=8, interpolation="bicubic")
    assert read_image(tmp_path / "a.png", small, 8, upscale=True).shape == (8, 8, 3)
    assert read_image(tmp_path / "a.png", AS_IT_IS, 1).shape == (1, 1, 3)
