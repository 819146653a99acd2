"""The model card inside a Core ML package, which Xcode shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.functions.names import STEM, plain_name
from morvit_deploy.machine.this import versions
from morvit_deploy.model.answers.heads import PLAIN, SIGMOID
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan

PREFIX = "morvit"  # of our keys in the user-defined metadata


@dataclass(frozen=True)
class Subject:
    """The package that a card describes."""

    config: Config
    plan: Plan
    form: CoremlForm
    precision: str
    input: str
    checkpoint: str  # sha256
    carried: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """The texts of a model card."""

    author: str
    license: str
    version: str
    description: str
    ports: Mapping[str, str]  # name of an input or output -> a sentence
    metadata: Mapping[str, str]  # the user-defined part


def model_card(about: Subject, author: str | None, license: str | None, version: str | None = None) -> Card:
    """The card of a package; author and license default to the checkpoint's provenance, `version` to this one."""
    provenance = about.config.provenance or {}
    described = {
        "plan": about.plan.model_dump(mode="json", exclude={"calibration"}),
        "preprocess": about.config.preprocess.model_dump(mode="json"),
        "form": {"precision": about.precision, **about.form.model_dump(mode="json")},
    }
    metadata = {
        "checkpoint.sha256": about.checkpoint,
        "head_activation": about.config.head_activation,
        "version": version or versions().get("morvit-deploy", "unknown"),
        **{name: json.dumps(value, separators=(",", ":")) for name, value in described.items()},
    }
    return Card(
        author=author or str(provenance.get("author", "")),
        license=license or str(provenance.get("license", "")),
        version=about.checkpoint[:12],
        description=_description(about),
        ports=_ports(about),
        metadata={f"{PREFIX}.{name}": text for name, text in metadata.items()},
    )


def _description(about: Subject) -> str:
    config, plan = about.config, about.plan
    classes = f"{config.num_classes} classes of {config.pictures} pictures"
    begin = f"MoR-ViT ({config.routing}): {classes}, {about.precision}."
    if not plan.adaptive:
        return f"{begin} One function runs every picture."
    names = ", ".join(bucket.name for bucket in plan.buckets)
    return (
        f"{begin} The function `{STEM}` returns the number of the bucket that a picture needs and the inputs of that "
        f"bucket's function ({names}); a picture that overflows is run again in `{plan.buckets[-1].name}`."
    )


def _ports(about: Subject) -> dict[str, str]:
    config, preprocess = about.config, about.config.preprocess
    high, wide = config.image_shape
    crop = f"the central {wide}×{high} pixels"
    if isinstance(preprocess.resize, tuple):
        height, width = preprocess.resize
        crop = f"resized to {width}×{height} whatever its shape ({preprocess.interpolation}), then {crop}"
    elif preprocess.resize:
        crop = f"its shorter side resized to {preprocess.resize} ({preprocess.interpolation}), then {crop}"
    if about.input == "uint8":
        image = (
            f"{'An RGB' if config.in_channels == 3 else 'A gray'} picture: {crop}. Normalisation is inside."
        )
    else:
        image = f"A picture, {crop}, as (pixel / 255 − mean) / std, channels first."
    apart = ", independent of the others (sigmoid); a picture may have several classes above 0.5, or none."
    handed = {plain_name(name): "Passed from the stem to a bucket's function." for name in about.carried}
    return {
        "image": image,
        "logits": f"One number for each of the {config.num_classes} classes"
        + ("." if config.head_activation == PLAIN else f", before {config.head_activation}."),
        "features": f"The {config.embed_dim} numbers that the head reads.",
        "tokens": f"A row of {config.embed_dim} numbers for each of the {config.num_patches} patches, row by row.",
        "classLabel": "The most probable class.",
        "classLabel_probs": "The probability of each class"
        + (apart if config.head_activation == SIGMOID else "."),
        "bucket": "Number of the bucket that the picture needs; the cheapest is 0.",
        "overflow": "1: the picture needs more tokens than this bucket holds; run it in the last one.",
        "depth": f"Steps (of {config.num_steps}) that each of the {config.num_patches} patches ran, row by row.",
    } | handed
