"""Run an exported bundle with ONNX Runtime, numpy and Pillow alone: nothing of morvit-deploy is imported.

python examples/onnxruntime_only.py build/demo/digits-expert examples/digits-test/*.png
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]  # name -> array
Graph = Callable[[Arrays], Arrays]


def open_onnx(path: Path) -> Graph:
    """Open one graph. It finds `weights.bin` in its own folder."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


class Bundle:
    """One graph, or with `--dispatch host` a stem and a trunk for each bucket, which are opened on first use."""

    def __init__(self, folder: Path, open_graph: Callable[[Path], Graph] = open_onnx) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text())
        assert self.manifest["input"] == "uint8", "export with --input uint8"
        self.folder, self.open_graph, self.trunks = folder, open_graph, dict[str, Graph]()
        self.host = self.manifest["dispatch"] == "host"
        assert not self.host or self.manifest["batch"] == 1, "export with --batch 1"
        self.first = open_graph(folder / ("stem.onnx" if self.host else "model.onnx"))

    def run(self, pixels: Any) -> Arrays:
        """RGB pixels, uint8 (batch, height, width, 3), to every output of the manifest."""
        found = self.first({"image": pixels})
        return self._in_its_bucket(found) if self.host else found

    def _in_its_bucket(self, found: Arrays) -> Arrays:
        """Run the trunk of the stem's bucket, and `full`, the last, for an image that does not fit."""
        carried = {port["name"]: found.pop(port["name"]) for port in self.manifest["carried"]}
        found |= self._trunk(int(found["bucket"][0]))(carried)
        if found.get("overflow", [False])[0]:
            last = len(self.manifest["plan"]["buckets"]) - 1
            found |= self._trunk(last)(carried) | {"overflow": found["overflow"]}
            found["bucket"] = np.full_like(found["bucket"], last)
        return found

    def _trunk(self, bucket: int) -> Graph:
        name = self.manifest["plan"]["buckets"][bucket]["name"]
        if name not in self.trunks:
            self.trunks[name] = self.open_graph(self.folder / f"{name}.onnx")
        return self.trunks[name]


def main() -> None:
    """Print the class of each picture."""
    from PIL import Image

    bundle = Bundle(Path(sys.argv[1]))
    size = bundle.manifest["config"]["image_size"]
    assert bundle.manifest["batch"] in (1, "dynamic"), "export with --batch 1"
    labels = bundle.manifest["labels"]
    for picture in sys.argv[2:]:
        image = Image.open(picture).convert("RGB")
        assert image.size == (size, size), f"{picture}: resize and crop to {size}×{size} first"
        best = int(bundle.run(np.asarray(image, dtype=np.uint8)[None])["logits"][0].argmax())
        print(picture, labels[best] if labels else best)


if __name__ == "__main__":
    main()
