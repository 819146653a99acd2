"""Run an exported bundle with ONNX Runtime, numpy and Pillow alone: nothing of morvit-deploy is imported.

python examples/onnxruntime_only.py build/demo/digits-expert examples/digits-test/*.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

bundle, pictures = Path(sys.argv[1]), sys.argv[2:]
manifest = json.loads((bundle / "manifest.json").read_text())
size = manifest["config"]["image_size"]
assert manifest["input"] == "uint8" and manifest["batch"] in (1, "dynamic"), (
    "export with --input uint8 --batch 1"
)
session = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])

for picture in pictures:
    image = Image.open(picture).convert("RGB")
    assert image.size == (size, size), f"{picture}: resize and crop to {size}×{size} first"
    logits = session.run(["logits"], {"image": np.asarray(image, dtype=np.uint8)[None]})[0][0]
    best = int(logits.argmax())
    print(picture, manifest["labels"][best] if manifest["labels"] else best)
