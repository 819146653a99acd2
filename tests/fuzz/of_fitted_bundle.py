"""Bundles whose hashes were made to fit damaged files: `verify` must not pass one that gives other logits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from mutations import bytes_of
from of_bundle import FILES, MANIFEST
from promise import Case, Ended, Kind

from morvit_deploy import open_bundle
from morvit_deploy.bundle.pixels import synthetic_images

WORDS = ("verify", "bundle", "--checkpoint", "checkpoint", "--json")
TOLERANCE = 1e-3  # logits in float32; a tenth of what a changed decision makes


@st.composite
def fitted(draw: st.DrawFn, seeds: Path) -> Case:
    name = draw(st.sampled_from(FILES))
    content = draw(bytes_of((seeds / name).read_bytes()))
    manifest = json.loads((seeds / MANIFEST).read_text())
    for file in manifest["files"]:
        if f"bundle/{file['path']}" == name:
            file |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return Case(WORDS, {name: content, MANIFEST: json.dumps(manifest).encode()})


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """A bundle that passed gives the logits of the sound one."""
    with open_bundle(folder / "bundle") as session, open_bundle(seeds / "bundle") as sound:
        pixels = synthetic_images(4, session.manifest.config.image_size, seed=99)
        difference = np.abs(session.logits(pixels) - sound.logits(pixels)).max()
    return "" if difference <= TOLERANCE else f"passed, and its logits differ by {difference:.3g}"


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    return fitted(seeds)


KIND = Kind("fitted bundle", 100, ("bundle", "checkpoint"), cases, wrong, sound=WORDS)
