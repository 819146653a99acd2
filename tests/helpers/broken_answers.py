"""Bundles and sessions whose answers are not finite."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from morvit_deploy.agent.core.recipe import sha256_of
from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.bundle.session import Session


def fill_with_nan(bundle: Path) -> Path:
    """The bundle with every weight NaN, and a manifest that agrees."""
    weights, manifest = bundle / "weights.bin", bundle / "manifest.json"
    count = weights.stat().st_size // 4
    weights.write_bytes(np.full(count, np.nan, dtype=np.float32).tobytes())
    fields = json.loads(manifest.read_bytes())
    for file in fields["files"]:
        if file["path"] == weights.name:
            file["sha256"] = sha256_of(weights)
    manifest.write_text(json.dumps(fields))
    return bundle


def answer_nan(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Let the logits of these images of each run be NaN, as where products overflow."""
    run = Session.run

    def spoiled(self: Session, pixels: Pixels) -> Arrays:
        outputs = run(self, pixels)
        outputs["logits"] = outputs["logits"].copy()
        outputs["logits"][list(numbers)] = np.nan
        return outputs

    monkeypatch.setattr(Session, "run", spoiled)
