"""bundle.js turns pictures into the same bytes as Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from node import require, run_node
from numpy.typing import NDArray
from PIL import Image
from places import ROOT

from morvit_deploy.bundle.pixels import Pixels, normalise, prepare
from morvit_deploy.model.config import Preprocess

MODULE = ROOT / "morvit_deploy" / "bundle" / "web" / "bundle.js"
PROGRAM = Path(__file__).parent / "preprocess.mjs"
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
SIZES: tuple[tuple[Any, ...], ...] = (  # width, height, resize, crop, crop_rounding
    (64, 64, 64, 64, "even"),  # as it is
    (100, 70, 48, 32, "even"),
    (33, 91, 40, 31, "down"),  # odd margins
    (33, 91, 40, 31, "even"),
    (91, 33, 40, 31, "even"),
    (200, 150, 256, 224, "even"),  # larger, by a little
    (640, 427, 96, 81, "even"),
    (7, 5, 64, 64, "even"),  # far larger
    (1, 1, 32, 32, "even"),
    (50, 41, None, 32, "even"),  # cropped only
    (50, 41, None, 31, "down"),
    (81, 64, (40, 50), 37, "even"),  # squashed
    (13, 300, (77, 31), 31, "even"),  # taller, and wider
    (60, 90, (70, 50), 40, "even"),  # twice as many rows lost as columns: the width first
    (60, 90, (69, 50), 40, "even"),  # one more: the height first
    (100, 350, 64, 64, "even"),  # a tall picture
    (350, 100, 64, 64, "even"),
    (41, 50, (30, 20), 32, "even"),  # smaller than the crop: black around it
)


@dataclass(frozen=True)
class Case:
    """A picture and how it is prepared."""

    picture: Pixels  # (height, width, 4): the last channel is dropped
    preprocess: Preprocess
    size: int
    input: str

    def request(self) -> dict[str, Any]:
        """For preprocess.mjs."""
        height, width, _ = self.picture.shape
        fields = self.preprocess.model_dump(mode="json")
        shape = {"width": width, "height": height, "size": self.size, "input": self.input}
        return {**shape, "preprocess": fields, "pillow": PIL.__version__}

    def expected(self) -> NDArray[Any]:
        """What Python makes of it."""
        image = Image.fromarray(np.ascontiguousarray(self.picture[..., :3]))
        pixels = np.asarray(prepare(image, self.preprocess, self.size))
        return pixels if self.input == "uint8" else normalise(pixels[None], self.preprocess)[0]


def random_picture(width: int, height: int, rng: np.random.Generator, *, extreme: bool) -> Pixels:
    """RGBA noise; an extreme one is black and white, so that bicubic filters overshoot."""
    noise = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    return (noise > 127).astype(np.uint8) * np.uint8(255) if extreme else noise


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_pixels_are_those_of_python(tmp_path: Path, kind: str) -> None:
    require("node")
    rng = np.random.default_rng(0)
    how = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    cases = [
        Case(
            random_picture(width, height, rng, extreme=extreme),
            Preprocess(**how, resize=resize, interpolation=interpolation, crop_rounding=rounding),  # type: ignore[arg-type]
            size,
            kind,
        )
        for interpolation in INTERPOLATIONS
        for extreme in (False, True)
        for width, height, resize, size, rounding in SIZES
    ]
    (tmp_path / "pixels").write_bytes(b"".join(case.picture.tobytes() for case in cases))
    request = {"module": str(MODULE), "cases": [case.request() for case in cases]}
    run_node(PROGRAM, {**request, "pixels": str(tmp_path / "pixels"), "out": str(tmp_path / "out")}, tmp_path)
    written, start = (tmp_path / "out").read_bytes(), 0
    for case in cases:
        expected = case.expected()
        found = np.frombuffer(written, expected.dtype, expected.size, start).reshape(expected.shape)
        start += expected.nbytes
        assert np.array_equal(found, expected), f"{case.picture.shape} {case.preprocess} to {case.size}"
    assert start == len(written)
