"""Pictures: damaged bytes of many formats, odd modes and sizes, and formats that run a program."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from mutations import bytes_of
from PIL import Image
from promise import Case, Ended, Kind

MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "I", "F", "I;16", "HSV", "LAB")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX", "EPS", "PDF", "JPEG2000")
SIZES = ((40, 40), (33, 70), (1, 1), (31, 400), (1, 3000))
NAMES = (
    "x.png",
    "x.PNG",
    "x.jpg",
    "x.jpeg",
    "x.webp",
    "x.tif",
    "x.gif",
    "x.bmp",
    "x",
    "x.eps",
    "-x.png",
    "x\ny.png",
)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n(executed) (w) file closefile\nshowpage\n"


@st.composite
def encoded(draw: st.DrawFn) -> bytes:
    """A picture of some mode, size and format."""
    mode, size, format = (draw(st.sampled_from(among)) for among in (MODES, SIZES, FORMATS))
    noise = np.random.default_rng(draw(st.integers(0, 99))).integers(
        0, 256, (size[1], size[0], 3), dtype=np.uint8
    )
    image = Image.fromarray(noise)
    buffer = io.BytesIO()
    try:
        (image.convert("L").convert(mode) if mode in ("I", "F", "I;16", "1") else image.convert(mode)).save(
            buffer, format
        )
    except (OSError, ValueError, KeyError, SystemError):  # a format without this mode
        image.save(buffer, "PNG")
    return buffer.getvalue()


@st.composite
def damaged(draw: st.DrawFn) -> Case:
    content = draw(st.one_of(encoded(), st.just(POSTSCRIPT), st.binary(max_size=64)))
    if draw(st.booleans()):
        content = draw(bytes_of(content))
    name = f"given/{draw(st.sampled_from(NAMES))}"
    words = ("predict", "bundle", draw(st.sampled_from((name, "given"))), "--logits", "--json", "--upscale")
    return Case(words, {name: content})


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    answers = json.loads(ended.output)["predictions"]
    return "" if all(np.isfinite(one["logits"]).all() for one in answers) else "logits are not finite"


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    return damaged()


SOUND = ("predict", "bundle", "pictures/000.png", "--logits", "--json")
KIND = Kind("image", 500, ("bundle", "pictures"), cases, wrong, sound=SOUND)
