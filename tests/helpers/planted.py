"""Planted faults that targets share: edits of an app's data beside a model, hashes that fit, what `verify` finds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from morvit_deploy.bundle.manifest import describe_files, open_manifest
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.kit.write import CORE_TESTS, DESCRIPTION, GOLDEN, VECTORS
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.exporters.verification import options_of, verify
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.model.checkpoint import load_checkpoint

KIT = "MoRViTKit"


class Edited(Protocol):
    """A model's file in a copy of a bundle, under change."""

    package: Path

    def save(self) -> None: ...


def edited(
    bundle: Path, folder: Path, file: str, edit: Callable[[Path], Any], change: Callable[[Any], Any]
) -> Path:
    """A copy of a bundle in `folder`, changed, whose hashes fit."""
    copy = Path(shutil.copytree(bundle, folder / "edited"))
    opened = edit(copy / file)
    change(opened)
    opened.save()
    manifest = open_manifest(bundle)
    files = describe_files(copy, [file.path for file in manifest.files])
    told = manifest.model_copy(update={"files": tuple(files)})
    (copy / "manifest.json").write_text(told.to_json(), encoding="utf-8")
    return copy


def found(bundle: Path, checkpoint: Path) -> str:
    """What `verify` finds; empty where it passes."""
    try:
        manifest, model = open_manifest(bundle), load_checkpoint(checkpoint)
        exporter = find_target(manifest.target).load_exporter()
        graphs = build_graphs(manifest.form, model, manifest.plan, options_of(exporter, manifest))
        exporter.restore(graphs, manifest)
        structure = exporter.prove(graphs, manifest, bundle)
        if structure["violations"]:
            return "\n".join(structure["violations"])
        result = verify(bundle, checkpoint, threads=1, min_agreement=0.0)
    except BundleError as error:
        return str(error)
    return "" if result.passed else result.failure


def name_of(change: Any) -> str:
    """Of a fault, as the id of its test."""
    return str(change.__name__).replace("/", " ")


def in_json(path: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Edited], None]:
    def plant(edit: Edited) -> None:
        place = edit.package.parent / path
        content = json.loads(place.read_bytes())
        change(content)
        place.write_text(json.dumps(content), encoding="utf-8")

    plant.__name__ = Path(path).name + " " + getattr(change, "__name__", "")
    return plant


def swap_labels(content: dict[str, Any]) -> None:
    content["labels"][:2] = content["labels"][1::-1]


def swap_mean_and_std(content: dict[str, Any]) -> None:
    place = content["preprocessing"]
    place["mean"], place["std"] = place["std"], place["mean"]


def another_input(content: dict[str, Any]) -> None:
    content["input"] = "normalised"


def larger_tolerance(content: dict[str, Any]) -> None:
    content["tolerance"] = 1e6


def another_dispatch(content: dict[str, Any]) -> None:
    content["goldenBuckets"], content["guesses"] = [], content["guesses"][1:]


def golden_logits(edit: Edited) -> None:
    place = edit.package.parent / KIT / GOLDEN / "golden-logits.bin"
    np.fromfile(place, "<f4")[::-1].tofile(place)


def golden_pixels(edit: Edited) -> None:
    place = edit.package.parent / KIT / GOLDEN / "golden-pixels.bin"
    (255 - np.fromfile(place, np.uint8)).tofile(place)


# in every bundle for apps
FALSE_COPIES: list[Callable[[Edited], None]] = [
    in_json(DESCRIPTION, swap_mean_and_std),
    in_json(DESCRIPTION, another_input),
    in_json(f"{KIT}/{CORE_TESTS}/{DESCRIPTION}", another_input),
    in_json(f"{KIT}/{VECTORS}", another_dispatch),
    in_json(f"{KIT}/{GOLDEN}/golden.json", larger_tolerance),
    golden_logits,
    golden_pixels,
]
# where classes have names
FALSE_LABELS: list[Callable[[Edited], None]] = [
    in_json(DESCRIPTION, swap_labels),
    in_json(f"{KIT}/{CORE_TESTS}/{DESCRIPTION}", swap_labels),
]
