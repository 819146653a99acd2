"""Runs a Core AI asset with Apple's own runtime, on macOS and Linux. No torch."""

from __future__ import annotations

import sys
from pathlib import Path

from morvit_deploy.agent.core.running import Runner
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreai.form import CoreaiForm
from morvit_deploy.exporters.coreai.names import ASSET
from morvit_deploy.exporters.coreai.runtime import open_executable
from morvit_deploy.exporters.functions.running import Function, open_functions

NOT_THE_DEVICE = "Apple's Core AI runtime on the CPU: the runtime is Apple's, the device is not"
SUMMED_WIDE = f"{NOT_THE_DEVICE}; fp16 products are summed in float32"


def open_coreai(
    folder: Path, manifest: Manifest, threads: int | None, probes: bool = False, bucket: str | None = None
) -> Runner:
    """The runner of a bundle whose files have been checked; with `bucket`, every image in that bucket."""
    if not any(Path(file.path).is_relative_to(ASSET) for file in manifest.files):
        raise BundleError(f"{folder / 'manifest.json'} does not list {ASSET}; export it again")
    form = CoreaiForm.of(manifest)
    apple = sys.platform == "darwin"
    wide = manifest.precision == "fp16" and not apple
    executable = open_executable(folder / ASSET, form.inside if probes else {}, wide=wide)

    def function(name: str) -> Function:
        return Function(
            manifest,
            executable.load(name),
            list(form.inside.get(name, {})) if probes else [],
            layout="bsd",
            select=form.select,
            runtime="Core AI" if apple else SUMMED_WIDE if wide else NOT_THE_DEVICE,
            free=executable.free,
        )

    try:
        return open_functions(folder, manifest, form.functions, bucket, function)
    except BaseException:  # an interrupt, too: the asset would stay loaded
        executable.close_unused()
        raise


def open_bucket(folder: Path, manifest: Manifest, bucket: str | None) -> Runner:
    """What a device is compared with: this runtime on the CPU, which has no interpreter beside it."""
    return open_coreai(folder, manifest, None, bucket=bucket)
