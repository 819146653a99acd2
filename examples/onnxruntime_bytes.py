"""Run a bundle that is bytes in memory (an app's assets, a download, an archive) with ONNX Runtime and numpy alone.

The graph names its weights by file; the session is given that file's bytes. Python: ONNX Runtime 1.24 or newer.

python examples/onnxruntime_bytes.py build/demo/digits-expert
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

# from wherever an app has them: here a folder
files = {path.name: path.read_bytes() for path in Path(sys.argv[1]).iterdir() if path.is_file()}
manifest = json.loads(files["manifest.json"])
(port,) = manifest["inputs"]

options = ort.SessionOptions()
weights = files["weights.bin"]  # must live until the session is made
options.add_external_initializers_from_files_in_memory(["weights.bin"], [weights], [len(weights)])
session = ort.InferenceSession(files["model.onnx"], options, providers=["CPUExecutionProvider"])

shape = [size if isinstance(size, int) else 1 for size in port["shape"]]
image = np.random.default_rng(0).integers(0, 256, shape).astype(port["dtype"])
(logits,) = session.run(["logits"], {port["name"]: image})
print(json.dumps(logits.tolist()))
