"""The bundles of a model in every form, the pictures, and what the float64 reference says of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.exporters.api import export
from morvit_deploy.model.checkpoint import fingerprint, load_checkpoint
from morvit_deploy.model.plan import Plan, is_own
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.model.trace import Routing
from morvit_deploy.planning.rounds import calibrate
from morvit_deploy.verifying.comparison import exactly_normalised
from morvit_deploy.verifying.gaps import is_clear

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PICTURES = EXAMPLES / "digits-test"
MODELS = ("digits-expert", "digits-token")
ADAPTIVE = "a plan of several buckets"
BUCKETS = 3  # of the plan: two nested Ifs
AT_A_TIME = 8  # pictures in the reference, which keeps every state
# depth shows below fp32 which tokens ran which step
FORMS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "depth": {"with_depth": True},
    "dynamic": {"batch": "dynamic"},
    "graph": {"plan": ADAPTIVE, "dispatch": "graph"},
    "host": {"plan": ADAPTIVE, "dispatch": "host"},
    "fp16": {"precision": "fp16", "with_depth": True},
    "int8": {"precision": "int8", "with_depth": True, "images": PICTURES},
    "w8": {"precision": "w8", "with_depth": True, "images": PICTURES},
    "w4": {"precision": "w4", "with_depth": True, "images": PICTURES},
}
MEANINGS = {
    "fp32": "one graph for one image",
    "depth": "the same with `--with-depth`",
    "dynamic": "the same with `--batch dynamic`, 32 images at a time",
    "graph": f"a plan of {BUCKETS} buckets, `--dispatch graph`",
    "host": "the same plan, `--dispatch host`",
    "fp16": "`--precision fp16 --with-depth`",
    "int8": "`--precision int8 --with-depth`",
    "w8": "`--precision w8 --with-depth`",
    "w4": "`--precision w4 --with-depth`",
}


@dataclass(frozen=True)
class Expected:
    """What the float64 reference says of the pictures, as the bundle's plan routes them."""

    logits: NDArray[np.float64]  # (images, classes)
    depth: NDArray[np.int64]  # (images, patches)
    bucket: NDArray[np.int64]  # (images,)
    overflow: NDArray[np.bool_]  # (images,)
    clear: NDArray[np.bool_]  # (images,) round-off cannot change a decision


def read_pictures(model: str, count: int | None = None) -> Pixels:
    """Return `count` test pictures, evenly spaced, or all: uint8 (images, height, width, 3)."""
    images = open_images(PICTURES, load_checkpoint(EXAMPLES / model).config).all()
    return images if count is None else images[np.linspace(0, len(images) - 1, count).astype(int)]


def make_bundle(model: str, form: str, folder: Path) -> Path:
    """Return the bundle of a form, which is exported unless one of the same sources and options is in `folder`."""
    home, made_of = folder / model / form, key_of(model, FORMS[form])
    marker = home.with_name(f"{form}.made-of.txt")
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not (home.is_dir() and marker.is_file() and marker.read_text() == made_of):
            marker.unlink(missing_ok=True)
            _export(model, form, folder)
            marker.write_text(made_of)
    return home


def _export(model: str, form: str, folder: Path) -> None:
    options = dict(FORMS[form])
    if options.get("plan") is ADAPTIVE:
        options["plan"] = _plan(model, folder)
    if options.get("precision") in ("fp16", "int8"):  # whether int8 is faster than fp32 here is not asked
        options["allow_worse"] = True
    export(EXAMPLES / model, folder / model / form, force=True, **options)


def key_of(model: str, options: Mapping[str, Any]) -> str:
    """Return a digest of all that a bundle is made of."""
    digest = hashlib.sha256(json.dumps(options, default=str, sort_keys=True).encode())
    digest.update(fingerprint(EXAMPLES / model).encode())
    sources = [
        path for name in ("morvit_deploy", "exporters", "calibration") for path in (ROOT / name).rglob("*.py")
    ]
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _plan(model: str, folder: Path) -> Plan:
    made_of = key_of(model, {"buckets": BUCKETS})
    path = folder / model / f"plan-{made_of[:16]}.json"
    if not path.is_file():
        found = calibrate(EXAMPLES / model, PICTURES, mode="threshold", buckets=BUCKETS, allow_worse=True)
        path.write_text(found.plan.to_json())
    return Plan.model_validate_json(path.read_text())


class Reference:
    """A model in float64; pictures that several bundles route alike are run once."""

    def __init__(self, model: MoRViT, pictures: Pixels) -> None:
        self.model, self.pictures = model.double(), pictures
        self._known: dict[str, Expected] = {}

    def expected(self, bundle: Path) -> tuple[Manifest, Expected]:
        """Return a bundle's manifest, and what its plan's model says of the pictures, each by itself."""
        manifest = open_manifest(bundle)
        key = manifest.plan.to_json()
        if key not in self._known:
            self._known[key] = _run(self.model, manifest, self.pictures)
        return manifest, self._known[key]


def _run(model: MoRViT, manifest: Manifest, pictures: Pixels) -> Expected:
    plan = manifest.plan
    routing = None if is_own(plan, model.config) else Routing(thresholds=plan.thresholds)
    images = exactly_normalised(pictures, manifest.preprocess)
    with torch.no_grad(), fitting_threads(model.config):
        parts = [model(part, routing) for part in images.split(AT_A_TIME)]
    traces = [trace for part in parts for trace in part.traces]
    bucket, overflow = plan.dispatched(np.array([trace.counts for trace in traces]))
    return Expected(
        logits=torch.cat([part.logits for part in parts]).numpy(),
        depth=torch.cat([part.depth for part in parts]).numpy(),
        bucket=bucket,
        overflow=overflow,
        clear=is_clear(np.array([trace.clearance for trace in traces])),
    )
