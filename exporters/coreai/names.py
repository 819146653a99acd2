"""Names, values and tested versions of a Core AI asset. Light: `--help` imports it."""

from __future__ import annotations

from typing import Literal

Weights = Literal["float", "int8", "int4", "palette8", "palette6", "palette4"]  # as in a Core ML package
# bits of an index into a table of the weight's own values
PALETTES: dict[Weights, int] = {"palette8": 8, "palette6": 6, "palette4": 4}

ASSET = "MoRViT.aimodel"
OLDEST_IOS = 27  # and macOS 27: the first systems with Core AI
# beta versions that assets were checked with
TESTED = {"coreai-torch": "==0.4.3", "coreai-core": "==1.0.0b3", "torch": ">=2.13,<2.14"}
COMPRESSOR = {"coreai-opt": "==0.4.0"}  # for compressed weights only
