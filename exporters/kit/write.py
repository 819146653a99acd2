"""MoRViTKit, the Swift package that runs a bundle's model in an app, and the model's description. No torch.

The package's Swift sources are in `swift/` and the same for every model: an app adds one package and any number of
models, of Core ML and of Core AI. What differs by model is data: the description beside it, the README's figures, the
oldest system in `Package.swift`, and the expected values of the unit tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.functions.devices import oldest_macos
from morvit_deploy.exporters.functions.names import plain_name
from morvit_deploy.exporters.kit.form import DEFAULT_RUNTIME, AppForm
from morvit_deploy.exporters.kit.vectors import describe_preprocessing, side_of, test_vectors

FORMAT = "morvit-kit/1"
TEMPLATE = Path(__file__).parent / "swift" / "MoRViTKit"
SWIFT = "MoRViTKit"  # its folder in a bundle
DESCRIPTION = "MoRViT.json"  # beside the model, which the app renames with it
CORE_TESTS = "Tests/MoRViTCoreTests/Resources"
VECTORS = f"{CORE_TESTS}/vectors.json"
GOLDEN = "Tests/MoRViTKitTests/Resources"
MOST_IMAGES, MOST_BYTES = 4, 300_000  # of golden images: they are part of the app's sources


@dataclass(frozen=True)
class Golden:
    """Images and expected logits for the package's unit tests."""

    pixels: NDArray[np.uint8]  # (n, height, width, 3), already resized and cropped
    # of the float64 reference of the static graph: logits (n, classes), or features or tokens, a row for each image
    answers: NDArray[np.float32]
    bucket: NDArray[np.int32]  # (n,) number of the bucket that an image runs in
    tolerance: float  # absolute; by precision


def write_swift_package(folder: Path, manifest: Manifest, golden: Golden) -> list[str]:
    """Write MoRViTKit into `folder` (beside the bundle's model); returns the names of its files, sorted.

    The same manifest and golden images give the same bytes. TargetError for a manifest of another target.
    """
    description = _json(describe_model(manifest))
    chosen = choose_golden(golden)
    files = {
        source.relative_to(TEMPLATE).as_posix(): source.read_bytes()
        for source in sorted(TEMPLATE.rglob("*"))
        if source.is_file()
    }
    form = app_form(manifest)
    if (
        form.runtime == DEFAULT_RUNTIME
    ):  # of Core AI the sources ask, so that the package also serves apps for older systems
        files["Package.swift"] = _for_systems(files["Package.swift"].decode(), form.oldest_ios).encode()
    files["README.md"] = _filled_in(files["README.md"].decode(), manifest).encode()
    files[f"{CORE_TESTS}/{DESCRIPTION}"] = description
    files[VECTORS] = _json(test_vectors(manifest, golden.bucket))
    files |= {f"{GOLDEN}/{name}": content for name, content in golden_files(chosen).items()}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return sorted(files)


def write_description(folder: Path, manifest: Manifest) -> str:
    """Write the model's description into the bundle `folder`, beside the model; returns the file's name."""
    (folder / DESCRIPTION).write_bytes(_json(describe_model(manifest)))
    return DESCRIPTION


def describe_model(manifest: Manifest) -> dict[str, Any]:
    """The JSON that `ModelDescription.swift` decodes: Swift's names, the manifest's values.

    TargetError for a manifest of another target.
    """
    config, plan, form = manifest.config, manifest.plan, app_form(manifest)
    return {
        "format": FORMAT,
        "checkpoint": manifest.checkpoint.sha256,
        "precision": manifest.precision,
        "weights": form.weights,
        "minimumIOS": form.oldest_ios,
        "input": "image" if manifest.input == "uint8" else "normalised",
        "imageSize": config.image_size,
        "patchSize": config.patch_size,
        "classes": config.num_classes,
        "labels": manifest.labels,
        "preprocessing": describe_preprocessing(manifest.preprocess, side_of(config)),
        **_output_of(manifest),
        "dispatch": {
            "mode": plan.mode,
            "lead": plan.lead,
            "buckets": [bucket.model_dump(mode="json") for bucket in plan.buckets],
        },
        "functions": list(form.functions),
        "carried": [plain_name(port.name) for port in manifest.carried],
        "steps": config.num_steps,
        "answersDepth": any(port.name == "depth" for port in manifest.outputs),
        **({} if form.runtime == DEFAULT_RUNTIME else {"runtime": form.runtime}),
    }


def _output_of(manifest: Manifest) -> dict[str, Any]:
    """What logits mean; or that the model returns an array, and its shape for one image."""
    if manifest.output == "logits":
        return {"headActivation": manifest.config.head_activation}
    port = next(port for port in manifest.outputs if port.name == manifest.output)
    return {"output": manifest.output, "outputShape": list(port.shape[1:])}


def app_form(manifest: Manifest) -> AppForm:
    """The entry of a target that apps load; TargetError for another target's."""
    if not isinstance(manifest.target_form, AppForm):
        raise TargetError(
            f"got a manifest of target {manifest.target!r}; MoRViTKit runs models of targets 'coreml' and 'coreai'"
        )
    return manifest.target_form


def choose_golden(golden: Golden) -> Golden:
    """At most MOST_IMAGES images and about MOST_BYTES bytes; one of each bucket before a second of any."""
    seen: dict[int, int] = {}
    turn = []  # how many images of the same bucket come before each
    for bucket in golden.bucket.tolist():
        turn.append(seen.get(bucket, 0))
        seen[bucket] = turn[-1] + 1
    order = sorted(range(len(turn)), key=turn.__getitem__)
    each = golden.pixels[0].nbytes + golden.answers[0].nbytes
    chosen = sorted(order[: max(1, min(MOST_IMAGES, MOST_BYTES // each))])
    return Golden(golden.pixels[chosen], golden.answers[chosen], golden.bucket[chosen], golden.tolerance)


def golden_files(golden: Golden) -> dict[str, bytes]:
    """The golden images as the Swift tests read them: raw bytes, float32 little-endian, and their shape.

    Features and tokens have the names of logits: `classes` is how many numbers an image has.
    """
    count, height, width, _ = golden.pixels.shape
    header = {
        "count": count,
        "height": height,
        "width": width,
        "classes": golden.answers.shape[1],
        "buckets": golden.bucket.tolist(),
        "tolerance": golden.tolerance,
    }
    return {
        "golden.json": _json(header),
        "golden-pixels.bin": np.ascontiguousarray(golden.pixels).tobytes(),
        "golden-logits.bin": golden.answers.astype("<f4").tobytes(),
    }


def _for_systems(text: str, ios: int) -> str:
    """Package.swift for the oldest systems that load the model."""
    return _replaced(text, {'"17.0"': f'"{ios}.0"', '"14.0"': f'"{oldest_macos(ios)}.0"'})


def _filled_in(text: str, manifest: Manifest) -> str:
    form, plan, config = app_form(manifest), manifest.plan, manifest.config
    rows = [
        f"| `{name}` | {', '.join(map(str, bucket.capacity))} | {bucket.macs:,} |"
        for name, bucket in zip(form.functions[-len(plan.buckets) :], plan.buckets, strict=True)
    ]
    size = config.image_size
    figures = {
        "{{MODEL}}": form.file,
        "{{DESCRIPTION}}": DESCRIPTION,
        "{{SYSTEMS}}": f"iOS {form.oldest_ios} or macOS {oldest_macos(form.oldest_ios)}",
        "{{IMAGE}}": f"{size}×{size}",
        "{{RETURNS}}": _returned(manifest),
        "{{PRECISION}}": f"{manifest.precision}, weights {form.weights}",
        "{{CHECKPOINT}}": manifest.checkpoint.sha256,
        "{{BUCKETS}}": "\n".join(rows),
    }
    return _replaced(text, figures)


def _returned(manifest: Manifest) -> str:
    """What the model returns, for the README's table: `10 classes`, `tokens, 196 × 768 numbers`."""
    shape = _output_of(manifest).get("outputShape")
    if shape is None:
        return f"{manifest.config.num_classes:,} classes"
    return f"{manifest.output}, {' × '.join(f'{length:,}' for length in shape)} numbers"


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        if old not in text:
            raise AssertionError(f"the Swift template has no {old}")
        text = text.replace(old, new)
    return text


def _json(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False) + "\n").encode()
