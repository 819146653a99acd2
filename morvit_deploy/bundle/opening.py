"""Opens a picture file as gray, RGB or RGBA, from the formats that Pillow decodes itself. Pillow only."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from morvit_deploy.bundle.png import missing_share
from morvit_deploy.errors import ImageError

# Formats by Pillow's names, and the suffixes of their files. For EPS and others Pillow starts a program.
FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "GIF": (".gif",),
}
KNOWN = ", ".join(FORMATS).replace("WEBP", "WebP")
PEEKED = 256  # headers that are read for a remark; more would take too long on network drives
ORIENTATION = 0x0112  # EXIF tag; 1: upright
_CONVERTIBLE = {"RGB", "L", "P", "1", "RGBA", "LA", "PA", "CMYK", "YCbCr"}
_BRANDS = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
    b"avif": "AVIF",
    b"avis": "AVIF",
}
_UNDECODABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, RuntimeError, EOFError, MemoryError, IndexError, KeyError),
    *(ArithmeticError, AttributeError, struct.error, zlib.error),
)  # raised by Pillow's decoders for damaged files


def open_picture(path: Path, *, mode: str = "RGB", exif: bool = False) -> Image.Image:
    """The picture in a mode (L, RGB, RGBA), of an animation the first frame; with `exif`, turned upright.

    ImageError when it is no regular file, of no known format, damaged, cut off, or has no 8 bits a channel.
    """
    with _opened(path) as file:
        file.load()
        if file.format == "PNG" and (missing := missing_share(path)):
            raise ValueError(f"{missing:.1%} of its rows are missing")
        image = ImageOps.exif_transpose(file) if exif else file.copy()
    if image.mode not in _CONVERTIBLE:
        raise ImageError(
            f"{path} has mode {image.mode!r} (no RGB meaning, or not 8 bits a channel); convert it to 8-bit RGB"
        )
    converted: Image.Image = image if image.mode == mode else image.convert(mode)
    return converted


def is_turned(path: Path) -> bool:
    """Does its EXIF orientation say that it is not upright? Reads the header only; False if it cannot be read."""
    try:
        with _opened(path) as file:
            return file.getexif().get(ORIENTATION, 1) in range(2, 9)
    except ImageError:
        return False


def is_animated(path: Path) -> bool:
    """Does it have more frames than the first one? False if it cannot be read."""
    try:
        with _opened(path) as file:
            return file.format != "MPO" and bool(getattr(file, "is_animated", False))
    except ImageError:
        return False


def why_not_readable(path: Path) -> str | None:
    """Why a path is no file with content, with what to do; None for one that is. Opens nothing."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):  # noqa: PTH114  # False for a name that is too long, too
            return "is a link to a file that does not exist"
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(found.st_mode):
        return "is a folder, expected an image file"
    if not stat.S_ISREG(found.st_mode):
        return "is a pipe, a socket or a device, expected an image file; save its content to a file"
    return None if found.st_size else "is not an image: it is empty (0 bytes); copy it again"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, not decoded yet; every error of Pillow becomes an ImageError that names the file."""
    if (reason := why_not_readable(path)) is not None:
        raise ImageError(f"{path} {reason}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which is not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=list(FORMATS)) as file:
                yield file
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not an image that can be read ({KNOWN}){_format_hint(path)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(f"{path} has more pixels than is safe to decode; shrink it first") from None
    except _UNDECODABLE as error:
        raise ImageError(f"{path} cannot be decoded: {error}; the file may be cut off") from None


def _format_hint(path: Path) -> str:
    """What the file is instead, where its first bytes say so."""
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except OSError:
        return ""
    found = _BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else None
    if start.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        found = "EPS, which only a PostScript program can draw"
    if start.startswith(b"%PDF"):
        found = "PDF"
    return f"; it is {found}: convert it to PNG or JPEG" if found else ""
