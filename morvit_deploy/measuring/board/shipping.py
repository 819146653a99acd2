"""Packs one bundle for a device: its files, recipe, pictures and expected output. No torch."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.recipe import EXPECTED, PIXELS, RECIPE, Recipe
from morvit_deploy.bundle.session import Session
from morvit_deploy.exporters.board import BoardFiles
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.measuring.core.parity import expected_answers, save_expected
from morvit_deploy.remote.shipment import Shipment


def pack(subject: Subject, name: str, place: str) -> Shipment:
    """The files of one bundle, below the folder `place` on the device. TargetError for a target without boards."""
    manifest = subject.manifest
    parts = find_target(manifest.target).load_board_files()(subject.bundle, manifest)
    own = {bucket: parts.alone_file.format(bucket) for bucket in parts.alone}
    made = {own[bucket]: graph for bucket, graph in parts.alone.items()} | dict(parts.files)
    files = {file.path: (file.bytes, file.sha256) for file in manifest.files}
    files |= {file: (len(it), hashlib.sha256(it).hexdigest()) for file, it in made.items()}
    recipe = Recipe(
        name=name,
        target=manifest.target,
        dispatch=manifest.dispatch,
        batch=manifest.batch,
        input=manifest.input,
        mean=tuple(manifest.preprocess.mean),
        std=tuple(manifest.preprocess.std),
        buckets=tuple(bucket.name for bucket in manifest.plan.buckets),
        carried=tuple(port.name for port in manifest.carried),
        graphs=dict(parts.graphs),
        alone=own,
        files=files,
        written_with=manifest.versions,
        more=dict(parts.more),
    )
    expected = io.BytesIO()
    save_expected(expected, manifest.output, _answers(subject, parts))
    content: dict[str, Path | bytes] = {file.path: subject.bundle / file.path for file in manifest.files}
    content |= made
    content |= {RECIPE: recipe.to_json().encode(), PIXELS: subject.pixels, EXPECTED: expected.getvalue()}
    return {f"{place}/{file}": it for file, it in content.items()}


def _answers(subject: Subject, files: BoardFiles) -> NDArray[np.float32]:
    """(images, …) of the first rounds, from the bundle, or from the same graphs on the CPU, on this machine."""
    if files.open_reference is None:
        return expected_answers(subject)
    return expected_answers(subject, Session(subject.bundle, subject.manifest, files.open_reference()))
