"""What travels to a device for one bundle: its files, recipe and pictures, and the logits to expect. No torch."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from morvit_deploy.agent.recipe import EXPECTED, PIXELS, RECIPE, Recipe
from morvit_deploy.bundle import Manifest
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.registry import open_bundle
from morvit_deploy.exporters.run_onnx import graph_files
from morvit_deploy.measuring.inputs import Subject
from morvit_deploy.remote.shipment import Shipment

PARITY_IMAGES = 16  # at least one round


def pack(subject: Subject, name: str, place: str) -> Shipment:
    """The files of one bundle, below the folder `place` on the device."""
    manifest = subject.manifest
    alone = _alone(subject)
    graphs = _graphs(manifest)
    files = {file.path: (file.bytes, file.sha256) for file in manifest.files}
    own = {bucket: f"alone-{bucket}.onnx" for bucket in alone}
    files |= {own[bucket]: (len(graph), hashlib.sha256(graph).hexdigest()) for bucket, graph in alone.items()}
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
        graphs=graphs,
        alone=own,
        files=files,
        written_with=manifest.versions,
    )
    content: dict[str, Path | bytes] = {file.path: subject.bundle / file.path for file in manifest.files}
    content |= {own[bucket]: graph for bucket, graph in alone.items()}
    content |= {RECIPE: recipe.to_json().encode(), PIXELS: subject.pixels, EXPECTED: _expected(subject)}
    return {f"{place}/{file}": it for file, it in content.items()}


def parity_rounds(subject: Subject) -> int:
    """Rounds that hold PARITY_IMAGES pictures, or all there are."""
    return min(len(subject.rounds), max(1, PARITY_IMAGES // subject.batch))


def _graphs(manifest: Manifest) -> dict[str, str]:
    if manifest.target != "onnx":
        raise TargetError(f"a bundle of target {manifest.target!r} cannot be sent by this version")
    return graph_files(manifest.dispatch, manifest.plan)


def _alone(subject: Subject) -> dict[str, bytes]:
    """Each bucket's graph without the choice, where there is one: the device has no onnx to take it out."""
    if not subject.manifest.plan.adaptive:
        return {}
    from morvit_deploy.exporters.onnx_plain import plain_graph

    names = [bucket.name for bucket in subject.manifest.plan.buckets]
    return {name: plain_graph(subject.bundle, subject.manifest, name).SerializeToString() for name in names}


def _expected(subject: Subject) -> bytes:
    """`logits` (images, classes) of the bundle's own runner here, as a .npz file."""
    pixels = np.load(subject.pixels, mmap_mode="r", allow_pickle=False)[: parity_rounds(subject)]
    with open_bundle(subject.bundle) as session:
        logits = np.concatenate([session.logits(np.ascontiguousarray(batch)) for batch in pixels])
    stored = io.BytesIO()
    np.savez(stored, logits=logits)
    return stored.getvalue()
