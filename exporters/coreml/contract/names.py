"""Names and values of a Core ML package. Light: `--help` imports it."""

from __future__ import annotations

from typing import Literal

Weights = Literal["float", "int8", "int4", "palette8", "palette6", "palette4"]
Ios = Literal[17, 18]

PACKAGE = "MoRViT.mlpackage"
SEVERAL_FUNCTIONS = 18  # the oldest iOS that loads a package of several functions
SYSTEMS: dict[int, str] = {17: "iOS 17 and macOS 14", 18: "iOS 18 and macOS 15"}
