"""What travels to a device for one bundle: its files, recipe and pictures, and the logits to expect. No torch."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.recipe import EXPECTED, PIXELS, RECIPE, Recipe
from morvit_deploy.bundle.session import Session
from morvit_deploy.bundle.trt import ALONE, BUILD
from morvit_deploy.bundle.trt import RECIPE as RECIPE_OF_ENGINES
from morvit_deploy.exporters.onnx.graphs.names import WEIGHTS, graph_files
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.exporters.trt.run import graphs_of, on_cpu
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.measuring.core.parity import expected_logits
from morvit_deploy.remote.shipment import Shipment


@dataclass(frozen=True)
class Parts:
    """What a target's runner on the device needs beside the bundle's own files."""

    graphs: dict[str, str]  # part of the bundle to its file
    alone: dict[str, bytes]  # each bucket's graph without the choice, where there is one
    logits: NDArray[np.float32]  # (images, classes) of the first rounds, as the bundle returns them here
    alone_file: str = "alone-{}.onnx"  # of a bucket
    files: dict[str, bytes] = field(default_factory=dict)  # that the bundle itself does not have
    more: dict[str, Any] = field(default_factory=dict)  # plain JSON that only that runner reads


def pack(subject: Subject, name: str, place: str) -> Shipment:
    """The files of one bundle, below the folder `place` on the device. TargetError for a target of no board."""
    manifest = subject.manifest
    parts = find_target(manifest.target).load_board_files()(subject)
    own = {bucket: parts.alone_file.format(bucket) for bucket in parts.alone}
    made = {own[bucket]: graph for bucket, graph in parts.alone.items()} | parts.files
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
        graphs=parts.graphs,
        alone=own,
        files=files,
        written_with=manifest.versions,
        more=parts.more,
    )
    expected = io.BytesIO()
    np.savez(expected, logits=parts.logits)
    content: dict[str, Path | bytes] = {file.path: subject.bundle / file.path for file in manifest.files}
    content |= made
    content |= {RECIPE: recipe.to_json().encode(), PIXELS: subject.pixels, EXPECTED: expected.getvalue()}
    return {f"{place}/{file}": it for file, it in content.items()}


def onnx_parts(subject: Subject) -> Parts:
    """Of an ONNX bundle. The device has no onnx to take a bucket's graph out of a larger one: that is done here."""
    manifest, alone = subject.manifest, {}
    if manifest.plan.adaptive:
        from morvit_deploy.exporters.onnx.graphs.plain import plain_graph

        names = [bucket.name for bucket in manifest.plan.buckets]
        alone = {name: plain_graph(subject.bundle, manifest, name).SerializeToString() for name in names}
    return Parts(graph_files(manifest.dispatch, manifest.plan), alone, expected_logits(subject))


def trt_parts(subject: Subject) -> Parts:
    """Of a TensorRT bundle. A bucket of a self-dispatching engine gets an engine and a recipe of its own.

    Logits are ONNX Runtime's on the same graphs: a GPU here may have no engines.
    """
    manifest, build = subject.manifest, subject.bundle / BUILD
    inside = Session(subject.bundle, manifest, on_cpu(subject.bundle, manifest))
    if not manifest.plan.adaptive or manifest.dispatch == "host":
        return Parts({}, {}, expected_logits(subject, inside))
    from morvit_deploy.exporters.onnx.graphs.plain import plain_graph

    names = [bucket.name for bucket in manifest.plan.buckets]
    alone = {name: plain_graph(build, graphs_of(manifest), name).SerializeToString() for name in names}
    recipe = json.loads((build / RECIPE_OF_ENGINES).read_text(encoding="utf-8"))
    (like,) = recipe["engines"]
    weights = [file for file in recipe["files"] if file["name"] == WEIGHTS]
    graphs = [
        {"name": f"{name}.onnx", "bytes": len(graph), "sha256": hashlib.sha256(graph).hexdigest()}
        for name, graph in alone.items()
    ]
    engines = [like | {"name": name, "onnx": f"{name}.onnx", "engine": f"{name}.engine"} for name in names]
    own = json.dumps(recipe | {"files": [*weights, *graphs], "engines": engines}).encode()
    place = f"{ALONE}/{RECIPE_OF_ENGINES}"
    return Parts(
        {}, alone, expected_logits(subject, inside), alone_file=ALONE + "/{}.onnx", files={place: own}
    )
