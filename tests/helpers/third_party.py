"""timm and Transformers beside any build of torchvision.

A torchvision wheel of another PyTorch build cannot load its operators and fails at import; no classifier needs them,
so their two schemas are declared in its place. Ours needs neither library: they are the other side of golden tests.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch

_DECLARED: list[torch.library.Library] = []  # kept: a collected library takes its operators along


def _load_torchvision() -> None:
    try:
        import torchvision  # noqa: F401  # only whether it can be
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)


def third_party(name: str) -> Any:
    """The module called `name`."""
    _load_torchvision()
    return importlib.import_module(name)
