"""What can be said of a bundle without its checkpoint: its files are whole, and it runs. No torch, no onnx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.bundle.links import open_linked
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import synthetic_for
from morvit_deploy.bundle.session import Session, warnings_here
from morvit_deploy.errors import BundleError, MissingExtraError
from morvit_deploy.exporters.targets import open_runner
from morvit_deploy.report import Report, Table, size

IMAGES = 4  # synthetic ones, to run it once
AGAINST_CHECKPOINT = (
    "structure of the written graphs against the checkpoint",
    "routing decisions and logits against the checkpoint",
)


@dataclass(frozen=True)
class BundleCheck:
    """What was checked of a bundle, with what was found, and what was not checked."""

    bundle: Path
    checked: Mapping[str, str]
    not_checked: tuple[str, ...]
    warnings: tuple[str, ...] = ()  # why its results may be worse here

    def as_dict(self) -> dict[str, Any]:
        """For programs. It has no `passed`: that is said of a bundle that was compared with its checkpoint."""
        return {
            "bundle": str(self.bundle),
            "checked": dict(self.checked),
            "not_checked": list(self.not_checked),
            "warnings": list(self.warnings),
        }

    def report(self) -> Report:
        """Two tables: checked, and not checked."""
        rows = [(what,) for what in self.not_checked]
        return Report(
            "Bundle check",
            [
                Table("Checked", ("what", "found"), list(self.checked.items())),
                Table("Not checked", ("what",), rows),
            ],
            f"{self.bundle} passes {len(self.checked)} checks; it was not compared with its checkpoint.",
        )


def check_bundle(bundle: str | Path, *, threads: int | None = None) -> BundleCheck:
    """Check manifest, sizes and hashes, then load the graphs and run synthetic images.

    Raises BundleError for a bundle that is damaged, was edited, or returns logits that are not finite. Where the
    runtime of its target is not installed, running it is listed as not checked.
    """
    folder, manifest = open_linked(bundle)
    total = size(sum(file.bytes for file in manifest.files))
    checked = {
        "manifest": f"{manifest.format}, target {manifest.target}, {manifest.precision}; fits its config and plan",
        "files": f"{len(manifest.files)}, {total}; size and sha256 of each as listed",
    }
    warnings = warnings_here(manifest)
    try:
        checked |= _run(folder, manifest, threads)
    except MissingExtraError as error:
        return BundleCheck(folder, checked, (f"whether it runs: {error}", *AGAINST_CHECKPOINT), warnings)
    return BundleCheck(folder, checked, AGAINST_CHECKPOINT, warnings)


def _run(folder: Path, manifest: Manifest, threads: int | None) -> dict[str, str]:
    with Session(folder, manifest, open_runner(folder, manifest, threads=threads)) as session:
        answer = session.answer(synthetic_for(manifest.config, IMAGES))
        runtime = session.runner.runtime
    if not np.isfinite(answer).all():
        raise BundleError(f"{folder} returns {manifest.output} that are not finite; export it again")
    return {
        "graphs": f"loaded by {runtime}; inputs and outputs as listed",
        "run": f"finite {manifest.output} for {IMAGES} synthetic images",
    }
