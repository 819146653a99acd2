"""Names and values of a TensorRT bundle. Light: `--help` imports it."""

from __future__ import annotations

from typing import Literal

Flavor = Literal["tensorrt", "rtx"]

BUILD = "build"  # the bundle's folder with the graphs, their recipe and the engines
ALONE = "alone"  # beside it on a device: one engine for each bucket of a self-dispatching bundle
RECIPE, SCRIPT = "build.json", "build.py"
TIMING_CACHE = "timing.cache"
LARGEST_BATCH = 32  # default of a dynamic batch: what a session runs at a time

# options that a flavor does not support, with what to do instead
LACKS: dict[Flavor, dict[str, str]] = {
    "tensorrt": {
        "compute_capability": "TensorRT builds for the GPU that it runs on; build on the device, or use flavor 'rtx'",
    },
    "rtx": {
        "hardware_compatible": "TensorRT-RTX's engines run on every GPU from Ampere on as they are; name GPUs with "
        "compute_capability to narrow it",
        "version_compatible": "TensorRT-RTX has no lean runtime: its engines run with the version that built them",
    },
}
