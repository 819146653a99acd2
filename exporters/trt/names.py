"""Names and values of a TensorRT bundle. Light: `--help` imports it."""

from __future__ import annotations

from typing import Literal

Flavor = Literal["tensorrt", "rtx"]

BUILD = "build"  # the bundle's folder with the graphs, their recipe and the engines
ALONE = "alone"  # beside it on a device: engines of one bucket each, where the bundle's own chooses
RECIPE, SCRIPT = "build.json", "build.py"
TIMING_CACHE = "timing.cache"
LARGEST_BATCH = 32  # of a dynamic batch unless another is asked for: what a session runs at a time

# what a flavor's builder does not have, by option: the sentence says what it does instead
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
