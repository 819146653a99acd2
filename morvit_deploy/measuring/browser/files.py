"""What the server offers: the page, the runtime, and each bundle with its pictures. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import morvit_deploy.bundle
from morvit_deploy.bundle.manifest import MANIFEST, Manifest
from morvit_deploy.exporters.onnx.graphs.names import GRAPH
from morvit_deploy.measuring.browser.runtime import Runtime
from morvit_deploy.measuring.browser.server import Served
from morvit_deploy.measuring.browser.worker import Place
from morvit_deploy.measuring.core.inputs import Subject

PIXELS = "pixels"  # beside a bundle's files
_PAGE = Path(__file__).parent / "web"
_BUNDLE_JS = Path(morvit_deploy.bundle.__file__).parent / "web" / "bundle.js"


def page_files(runtime: Runtime) -> dict[str, Served]:
    """The page's own files and those of onnxruntime-web, by name below the token."""
    own = {path.name: Served(path) for path in [*_PAGE.iterdir(), _BUNDLE_JS] if path.is_file()}
    return own | {f"ort/{name}": Served(path, fixed=True) for name, path in runtime.files().items()}


def place_of(subject: Subject, folder: str, scratch: Path) -> tuple[Place, dict[str, Served]]:
    """A bundle as it lies on disk, with the pixels of its rounds."""
    raw = scratch / f"{folder}.pixels"
    np.load(subject.pixels, mmap_mode="r", allow_pickle=False).tofile(raw)
    names = (MANIFEST, *(file.path for file in subject.manifest.files))
    contents = {name: Served(subject.bundle / name) for name in names} | {PIXELS: Served(raw)}
    return _placed(subject, folder, contents)


def alone_of(
    place: Place, bucket: str, graph: bytes, files: Mapping[str, Served]
) -> tuple[Place, dict[str, Served]]:
    """One bucket of a bundle as a bundle of its own: `graph` for its graphs, the same weights and pixels."""
    manifest = alone_manifest(place.subject.manifest, bucket, graph)
    contents = {name: files[f"{place.folder}/{name}"] for name in place.files if not name.endswith(".onnx")}
    contents |= {MANIFEST: Served(manifest), GRAPH: Served(graph)}
    return _placed(place.subject, f"{place.folder}-{bucket}", contents)


def alone_manifest(manifest: Manifest, bucket: str, graph: bytes) -> bytes:
    """The manifest's text for one bucket's graph, which chooses nothing."""
    data = json.loads(manifest.to_json())
    weights = [file for file in data["files"] if not file["path"].endswith(".onnx")]
    own = {"path": GRAPH, "bytes": len(graph), "sha256": hashlib.sha256(graph).hexdigest()}
    buckets = [one for one in data["plan"]["buckets"] if one["name"] == bucket]
    plan = data["plan"] | {"buckets": buckets}
    return json.dumps(
        data | {"dispatch": "single", "carried": [], "plan": plan, "files": [own, *weights]}
    ).encode()


def _placed(subject: Subject, folder: str, contents: Mapping[str, Served]) -> tuple[Place, dict[str, Served]]:
    served = {f"{folder}/{name}": file for name, file in contents.items()}
    return Place(subject, folder, tuple(contents)), served
