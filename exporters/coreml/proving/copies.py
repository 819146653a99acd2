"""What a bundle says of its model in other places than the program: each is made again and compared.

These are the class names of `classify`, the description that Core ML checks an app's inputs against, the model card,
and MoRViTKit's data. An app believes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.contract.names import PACKAGE
from morvit_deploy.exporters.coreml.mil.function import Function
from morvit_deploy.exporters.coreml.mlpackage.card import PREFIX, Subject, model_card
from morvit_deploy.exporters.coreml.mlpackage.classify import BY_LABEL, LABEL
from morvit_deploy.exporters.coreml.mlpackage.save import MODEL
from morvit_deploy.exporters.coreml.proving.values import scale_of
from morvit_deploy.exporters.coreml.sdk.load import Message, coremltools
from morvit_deploy.exporters.kit.proof import kit_violations
from morvit_deploy.graph.unroll import StaticMoRViT

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
        *kit_violations(folder, manifest, exact, scale_of(manifest)),
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
            channels, height, width = kind.sizes[-3:]
            yield name, f"image {width}×{height} {'RGB' if channels == 3 else 'GRAYSCALE'}"
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
