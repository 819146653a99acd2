"""Test vectors for MoRViTCore's Swift arithmetic: inputs, and the values that Python computes for them. No torch."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import crop_centre, normalise, prepare, resize_image
from morvit_deploy.model.answers.heads import probabilities
from morvit_deploy.model.config import Config, Preprocess
from morvit_deploy.model.plan import Plan

ORIENTATION = 0x0112  # the EXIF tag
ORIENTATIONS = range(1, 9)
Resize = int | tuple[int, int] | None
FILTERS = get_args(Preprocess.model_fields["interpolation"].annotation)


def side_of(config: Config) -> int:
    """Edge of a model's images, which are squares: MoRViTKit is not written for others (`accompany.lacks`)."""
    high, wide = config.image_shape
    assert high == wide, "accompany has checked it"
    return high


def describe_preprocessing(preprocess: Preprocess, size: int) -> dict[str, Any]:
    """The JSON that `Preprocessing.swift` decodes: there `resize` is a number, and `squash` the other form."""
    fields = preprocess.model_dump(mode="json")
    rounding = fields.pop("crop_rounding", None)
    squash = fields["resize"] if isinstance(preprocess.resize, tuple) else None
    if squash:
        fields["resize"] = None
    return {
        "imageSize": size,
        **fields,
        **({"squash": squash} if squash else {}),
        **({"cropRounding": rounding} if rounding else {}),
    }


def test_vectors(manifest: Manifest, golden_buckets: NDArray[np.int32]) -> dict[str, Any]:
    """`vectors.json`: lists of cases, each with its inputs and the expected values."""
    size, preprocess = side_of(manifest.config), manifest.preprocess
    return {
        "geometry": [geometry_case(preprocess, size, side) for side in picture_sides(preprocess, size)],
        "normalized": normalised_case(preprocess),
        "orientation": [orientation_case(number) for number in ORIENTATIONS],
        "pictures": [picture.ravel().tolist() for picture in pictures()],
        "prepared": prepared_cases(),
        "dispatch": dispatch_cases(manifest.plan),
        "guesses": guesses_cases(manifest.config.num_classes, manifest.config.head_activation),
        "colors": colour_cases(manifest.config.num_steps),
        "goldenBuckets": golden_buckets.tolist(),
    }


def picture_sides(preprocess: Preprocess, size: int) -> list[tuple[int, int]]:
    """Widths and heights: of cameras, of the model, and where rounding decides."""
    near = min(preprocess.resize) if isinstance(preprocess.resize, tuple) else preprocess.resize or size
    sides = [(size, size), (size, size + 1), (size + 3, size), (near, near + 1), (near + 3, near)]
    sides += [(2 * near + 1, 3 * near + 2), (3 * near - 1, 2 * near - 1)]
    cameras = [(640, 480), (480, 640), (1280, 720), (1080, 1920), (1179, 2556), (4032, 3024)]
    return [*sides, *(pair for pair in cameras if min(pair) >= size)]


def geometry_case(preprocess: Preprocess, size: int, side: tuple[int, int]) -> dict[str, int]:
    """What `pixels.py` resizes and crops a picture of `side` (width, height) to.

    Where the crop begins is read off a picture whose pixels are their own places.
    """
    resized = resize_image(
        Image.new("1", side), preprocess.model_copy(update={"interpolation": "nearest"}), size
    )
    width, height = resized.size
    places = Image.fromarray(np.arange(width * height, dtype=np.int32).reshape(height, width))
    top, left = divmod(int(np.asarray(crop_centre(places, size, preprocess))[0, 0]), width)
    return {
        "width": side[0],
        "height": side[1],
        "resizedWidth": width,
        "resizedHeight": height,
        "left": left,
        "top": top,
    }


def normalised_case(preprocess: Preprocess) -> dict[str, Any]:
    """A picture of 2 × 3 pixels as normalised numbers."""
    pixels = np.linspace(0, 255, 18).astype(np.uint8).reshape(1, 2, 3, 3)
    return {
        "width": 3,
        "height": 2,
        "pixels": pixels.ravel().tolist(),
        "numbers": normalise(pixels, preprocess).ravel().tolist(),
    }


def orientation_case(orientation: int) -> dict[str, Any]:
    """A picture of 2 × 3 pixels as Pillow turns it upright."""
    stored = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    stored.getexif()[ORIENTATION] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))
    return {"orientation": orientation, "stored": np.asarray(stored).tolist(), "upright": upright.tolist()}


def pictures() -> list[NDArray[np.uint8]]:
    """Random pictures (height, width, 3): one to shrink, one to enlarge."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((13, 21), (7, 9))]


def prepared_cases() -> list[dict[str, Any]]:
    """Pictures as Pillow prepares them: each filter, shrinking, enlarging and as they are; each orientation."""
    sizes: list[tuple[int, Resize, int]] = [(0, 10, 8), (1, 12, 11), (0, None, 8), (0, (9, 11), 8)]
    cases = [prepared_case(*size, name) for size in sizes for name in FILTERS]
    return cases + [prepared_case(*sizes[0], "bicubic", orientation) for orientation in ORIENTATIONS]


def prepared_case(
    number: int, resize: Resize, size: int, interpolation: str, orientation: int = 1
) -> dict[str, Any]:
    """The picture `number`, turned upright, resized to `resize` and cropped to `size` × `size` pixels."""
    preprocess = Preprocess.model_validate(
        {
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "resize": resize,
            "interpolation": interpolation,
            "crop_rounding": "down" if isinstance(resize, tuple) else "even",
        }
    )
    stored = Image.fromarray(pictures()[number])
    stored.getexif()[ORIENTATION] = orientation
    prepared = prepare(ImageOps.exif_transpose(stored), preprocess, size)
    return {
        "picture": number,
        "width": stored.width,
        "height": stored.height,
        "orientation": orientation,
        "preprocessing": describe_preprocessing(preprocess, size),
        "pixels": np.asarray(prepared).ravel().tolist(),
    }


def dispatch_cases(plan: Plan) -> list[dict[str, Any]]:
    """Counts around every capacity, and the bucket that each needs."""
    counts = {
        tuple(max(count + change, 0) for count in bucket.capacity)
        for bucket in plan.buckets
        for change in (-1, 0, 1)
    }
    most = plan.buckets[-1].capacity
    rows = [
        list(row) for row in sorted(counts) if all(n <= limit for n, limit in zip(row, most, strict=True))
    ]
    rows += [[row[0], *(0 for _ in row[1:])] for row in rows]
    rows += [[*row[:-1], most[-1]] for row in rows]
    bucket, overflow = plan.dispatched(np.array(rows))
    return [
        {"counts": row, "bucket": int(number), "overflow": bool(flag)}
        for row, number, flag in zip(rows, bucket, overflow, strict=True)
    ]


def some_logits(classes: int) -> list[NDArray[np.float32]]:
    """Spread, equal and far apart."""
    spread = np.random.default_rng(0).normal(0, 3, classes)
    far = np.zeros(classes)
    far[0] = 1000
    return [row.astype(np.float32) for row in (spread, np.zeros(classes), far)]


def guesses_cases(classes: int, own: str) -> list[dict[str, Any]]:
    """The best five classes of some logits under each activation; those of the model's `own` come first."""
    names = sorted(("softmax", "sigmoid"), key=lambda name: name != own)
    return [guesses_case(logits, name) for name in names for logits in some_logits(classes)]


def guesses_case(logits: NDArray[np.float32], activation: str) -> dict[str, Any]:
    """The best five classes of logits, and those that the head decides for."""
    probability = probabilities(logits, activation)
    every = np.argsort(-logits, kind="stable")
    best = every[:5]
    return {
        "activation": activation,
        "logits": logits.tolist(),
        "indices": best.tolist(),
        "probabilities": probability[best].tolist(),
        "present": [int(i) for i in every if logits[i] > 0] if activation == "sigmoid" else [int(best[0])],
    }


def colour_cases(steps: int) -> list[dict[str, Any]]:
    """The colour of each depth, as `predict --depth-map` draws it."""
    from morvit_deploy.inspecting.depth_panels import Scale  # loads matplotlib

    scales = [Scale(lowest, steps) for lowest in (0, 1)]
    return [
        {"depth": int(depth), "lowest": scale.lowest, "highest": steps, "rgb": scale.colours(depth).tolist()}
        for scale in scales
        for depth in scale.depths
    ]
