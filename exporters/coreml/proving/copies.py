"""What a bundle says of its model in other places than the program: each is made again and compared.

These are the class names of `classify`, the description that Core ML checks an app's inputs against, the model card,
and MoRViTKit's data. An app believes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.contract.names import PACKAGE, SWIFT
from morvit_deploy.exporters.coreml.kit.vectors import test_vectors
from morvit_deploy.exporters.coreml.kit.write import (
    CORE_TESTS,
    DESCRIPTION,
    GOLDEN,
    VECTORS,
    describe_model,
)
from morvit_deploy.exporters.coreml.mil.function import Function
from morvit_deploy.exporters.coreml.mlpackage.card import PREFIX, Subject, model_card
from morvit_deploy.exporters.coreml.mlpackage.classify import BY_LABEL, LABEL
from morvit_deploy.exporters.coreml.mlpackage.save import MODEL
from morvit_deploy.exporters.coreml.proving.values import scale_of
from morvit_deploy.exporters.coreml.sdk.bundle import TOLERANCE
from morvit_deploy.exporters.coreml.sdk.load import Message, coremltools
from morvit_deploy.graph.pieces import choose
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.verifying.comparison import exactly_normalised

MOST_TOLERANCE = 10  # × the tolerance for the golden images themselves
DTYPES = {"fp16": "FLOAT16", "fp32": "FLOAT32", "int32": "INT32"}  # MIL's names in descriptions


def copy_violations(
    folder: Path, manifest: Manifest, written: Mapping[str, Function], exact: Mapping[str, StaticMoRViT]
) -> list[str]:
    """Every copy that differs from the manifest or the checkpoint; `exact` are the static graphs in float64."""
    coremltools()
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((folder / PACKAGE / MODEL).read_bytes())
    return [
        *_class_violations(written, manifest),
        *_port_violations(model.description, written, manifest),
        *_card_violations(model.description, manifest),
        *_kit_violations(folder, manifest, exact),
    ]


def _class_violations(written: Mapping[str, Function], manifest: Manifest) -> list[str]:
    """`classify` names the classes in the order of the logits."""
    expected = list(manifest.labels or ())
    return [
        f"function {name!r} classifies into {found}, the checkpoint's labels are {expected}"
        for name, function in written.items()
        for operation in function.operations
        if operation.type == "classify" and (found := _strings(function, operation)) != expected
    ]


def _strings(function: Function, operation: Any) -> list[str]:
    found = function.constant(operation, "classes")
    return [str(label) for label in (found if found is not None else ())]


def _port_violations(described: Message, written: Mapping[str, Function], manifest: Manifest) -> list[str]:
    """The description's inputs and outputs are the functions'; pictures are RGB, of the model's size."""
    owners = {one.name: one for one in described.functions} or {next(iter(written)): described}
    found = []
    for name, function in written.items():
        expected = dict(_ports(function, manifest))
        ports = {port.name: _described(port) for port in (*owners[name].input, *owners[name].output)}
        found += [
            f"the description of function {name!r} says that {port!r} is {ports.get(port)}, expected "
            f"{expected.get(port)}"
            for port in expected | ports
            if ports.get(port) != expected.get(port)
        ]
    predicted = (LABEL, BY_LABEL) if CoremlForm.of(manifest).classifier else ("", "")
    names = (described.predictedFeatureName, described.predictedProbabilitiesName)
    if names != predicted:
        found.append(f"the description predicts {names}, expected {predicted}")
    if described.functions and described.defaultFunctionName != next(iter(written)):
        found.append(
            f"the default function is {described.defaultFunctionName!r}, expected {next(iter(written))!r}"
        )
    return found


def _ports(function: Function, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Inputs and outputs of a function as `_described` puts them."""
    inputs = {value.name for value in function.inputs}
    for name in (*inputs, *function.outputs):
        kind = function.types[name]
        if name == LABEL:
            yield name, "string"
        elif name == BY_LABEL:
            yield name, "dictionary of string"
        elif name == "image" and manifest.input == "uint8":
            height, width = kind.sizes[-2:]
            yield name, f"image {width}×{height} RGB"
        else:
            yield name, f"{DTYPES.get(kind.dtype, kind.dtype)} {list(kind.sizes)}"


def _described(port: Message) -> str:
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType, ImageFeatureType

    kind = port.type.WhichOneof("Type")
    if kind == "imageType":
        image = port.type.imageType
        color = ImageFeatureType.ColorSpace.Name(image.colorSpace)
        return f"image {image.width}×{image.height} {color}"
    if kind == "multiArrayType":
        array = port.type.multiArrayType
        return f"{ArrayFeatureType.ArrayDataType.Name(array.dataType)} {list(array.shape)}"
    if kind == "dictionaryType":
        return f"dictionary of {port.type.dictionaryType.WhichOneof('KeyType').removesuffix('KeyType')}"
    return str(kind).removesuffix("Type")


def _card_violations(described: Message, manifest: Manifest) -> list[str]:
    """The model card, apart from author and license, which an export may set."""
    about = described.metadata
    form, carried = CoremlForm.of(manifest), tuple(port.name for port in manifest.carried)
    subject = Subject(
        manifest.config,
        manifest.plan,
        form,
        manifest.precision,
        manifest.input,
        manifest.checkpoint.sha256,
        carried,
    )
    card = model_card(subject, about.author, about.license, manifest.versions.get("morvit-deploy"))
    own = {key: text for key, text in about.userDefined.items() if key.startswith(f"{PREFIX}.")}
    found = {"version": about.versionString, "description": about.shortDescription, **own}
    expected = {"version": card.version, "description": card.description, **card.metadata}
    violations = [
        f"the model card's {name} is {found.get(name)!r}, expected {expected.get(name)!r}"
        for name in expected | found
        if found.get(name) != expected.get(name)
    ]
    owners = (described, *described.functions)
    ports = [port for owner in owners for port in (*owner.input, *owner.output)]
    return violations + [
        f"the model card says of {port.name!r}: {port.shortDescription!r}, expected {card.ports.get(port.name, '')!r}"
        for port in ports
        if port.shortDescription != card.ports.get(port.name, "")
    ]


def _kit_violations(folder: Path, manifest: Manifest, exact: Mapping[str, StaticMoRViT]) -> list[str]:
    """The model's description beside it and in MoRViTKit, and the expected values of the kit's tests."""
    listed = {file.path for file in manifest.files}  # an export proves the package before it writes these
    described = json.loads(json.dumps(describe_model(manifest)))
    violations = []
    for path in (DESCRIPTION, f"{SWIFT}/{CORE_TESTS}/{DESCRIPTION}"):
        if path in listed:
            violations += _json_violations(folder / path, path, described)
    vectors = f"{SWIFT}/{VECTORS}"
    if vectors in listed:
        content = _read(folder / vectors)
        buckets = np.asarray(content.get("goldenBuckets", []), dtype=np.int32)
        expected = json.loads(json.dumps(test_vectors(manifest, buckets)))
        violations += _json_violations(folder / vectors, vectors, expected)
    if f"{SWIFT}/{GOLDEN}/golden.json" in listed:
        violations += _golden_violations(folder / SWIFT / GOLDEN, manifest, exact)
    return violations


def _json_violations(path: Path, name: str, expected: dict[str, Any]) -> list[str]:
    found = _read(path)
    differing = sorted(key for key in {*expected, *found} if found.get(key) != expected.get(key))
    return [f"{name} differs from the manifest in {', '.join(differing)}"] if differing else []


def _golden_violations(folder: Path, manifest: Manifest, exact: Mapping[str, StaticMoRViT]) -> list[str]:
    """Golden logits and buckets are those of the static graphs, within the tolerance that the tests allow."""
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
        wanted, expected = _answer(exact, manifest, picture)
        if np.abs(expected - golden).max() > tolerance or bucket != wanted:
            found.append(
                f"{SWIFT}/{GOLDEN}: golden image {number} has other logits or another bucket than the model"
            )
    # it was scaled by the largest logit of more images than are kept
    if tolerance > MOST_TOLERANCE * TOLERANCE[manifest.precision] * max(
        1.0, float(np.abs(logits).max(initial=0.0))
    ):
        found.append(f"{SWIFT}/{GOLDEN}: golden.json tolerates {tolerance:g}, more than the precision leaves")
    return found


def _answer(
    exact: Mapping[str, StaticMoRViT], manifest: Manifest, picture: NDArray[np.uint8]
) -> tuple[int, Any]:
    """Bucket and logits of a picture (height, width, 3)."""
    names, plan = list(exact), manifest.plan
    if manifest.input == "uint8":
        image = torch.from_numpy(picture.transpose(2, 0, 1)[None] / scale_of(manifest))
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
    return number, out["logits"].numpy()[0]


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none, which then differs."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
