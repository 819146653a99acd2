"""Makes MoRViTKit's data again and compares it with what a bundle holds: an app believes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.functions.devices import TOLERANCE
from morvit_deploy.exporters.kit.vectors import test_vectors
from morvit_deploy.exporters.kit.write import CORE_TESTS, DESCRIPTION, GOLDEN, SWIFT, VECTORS, describe_model
from morvit_deploy.graph.pieces import choose
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.verifying.comparison import exactly_normalised

MOST_TOLERANCE = 10  # × the tolerance for the golden images themselves


def kit_violations(
    folder: Path, manifest: Manifest, exact: Mapping[str, StaticMoRViT], scale: float
) -> list[str]:
    """The model's description beside it and in MoRViTKit, and the expected values of the kit's tests.

    `exact` are the static graphs in float64, which take uint8 pixels divided by `scale`.
    """
    listed = {file.path for file in manifest.files}  # an export proves the model before it writes these
    violations = []
    for path in {DESCRIPTION, f"{SWIFT}/{CORE_TESTS}/{DESCRIPTION}"} & listed:
        described = json.loads(json.dumps(describe_model(manifest)))
        violations += _json_violations(folder / path, path, described)
    vectors = f"{SWIFT}/{VECTORS}"
    if vectors in listed:
        content = _read(folder / vectors)
        buckets = np.asarray(content.get("goldenBuckets", []), dtype=np.int32)
        expected = json.loads(json.dumps(test_vectors(manifest, buckets)))
        violations += _json_violations(folder / vectors, vectors, expected)
    if f"{SWIFT}/{GOLDEN}/golden.json" in listed:
        violations += _golden_violations(folder / SWIFT / GOLDEN, manifest, exact, scale)
    return violations


def _json_violations(path: Path, name: str, expected: dict[str, Any]) -> list[str]:
    found = _read(path)
    differing = sorted(key for key in {*expected, *found} if found.get(key) != expected.get(key))
    return [f"{name} differs from the manifest in {', '.join(differing)}"] if differing else []


def _golden_violations(
    folder: Path, manifest: Manifest, exact: Mapping[str, StaticMoRViT], scale: float
) -> list[str]:
    """Golden outputs and buckets are those of the static graphs, within the tolerance that the tests allow."""
    header = _read(folder / "golden.json")
    count, height, width, classes = (header.get(key, 0) for key in ("count", "height", "width", "classes"))
    pixels = np.fromfile(folder / "golden-pixels.bin", np.uint8)
    logits = np.fromfile(folder / "golden-logits.bin", "<f4")
    if pixels.size != count * height * width * 3 or logits.size != count * classes:
        return [
            f"{SWIFT}/{GOLDEN}: the files do not hold {count} images and their logits, as golden.json says"
        ]
    found = []
    tolerance, buckets = float(header["tolerance"]), header["buckets"]
    shaped = zip(
        pixels.reshape(count, height, width, 3), logits.reshape(count, classes), buckets, strict=True
    )
    for number, (picture, golden, bucket) in enumerate(shaped):
        wanted, expected = _answer(exact, manifest, picture, scale)
        if np.abs(expected - golden).max() > tolerance or bucket != wanted:
            found.append(
                f"{SWIFT}/{GOLDEN}: golden image {number} has other {manifest.output} or another bucket than the "
                "model"
            )
    # it was scaled by the largest logit of more images than are kept
    if tolerance > MOST_TOLERANCE * TOLERANCE[manifest.precision] * max(
        1.0, float(np.abs(logits).max(initial=0.0))
    ):
        found.append(f"{SWIFT}/{GOLDEN}: golden.json tolerates {tolerance:g}, more than the precision leaves")
    return found


def _answer(
    exact: Mapping[str, StaticMoRViT], manifest: Manifest, picture: NDArray[np.uint8], scale: float
) -> tuple[int, Any]:
    """Bucket of a picture (height, width, 3), and its logits, features or tokens, in one row."""
    names, plan = list(exact), manifest.plan
    if manifest.input == "uint8":
        image = torch.from_numpy(picture.transpose(2, 0, 1)[None] / scale)
    else:
        image = exactly_normalised(picture[None], manifest.preprocess)
    first, number = exact[names[0]], 0
    with torch.no_grad():
        if plan.adaptive:
            number = int(choose(plan, first.counts(first.begin(image, {}))).item())
        out = exact[names[number]](image)
        if "overflow" in out and bool(out["overflow"].any()):
            number = len(names) - 1
            out = exact[names[number]](image)
    return number, out[manifest.output].numpy()[0].ravel()


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none, which then differs."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
