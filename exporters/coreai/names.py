"""Names, values and tested versions of a Core AI asset. Light: `--help` imports it."""

from __future__ import annotations

from typing import Literal

Weights = Literal["float"]

ASSET = "MoRViT.aimodel"
OLDEST_IOS = 27  # and macOS 27: the first systems with Core AI
PROGRAM, DIGEST, METADATA = "main.mlirb", "main.hash", "metadata.json"  # files of an asset
# beta versions that assets were checked with
TESTED = {"coreai-torch": "==0.4.3", "coreai-core": "==1.0.0b3", "torch": ">=2.13,<2.14"}
