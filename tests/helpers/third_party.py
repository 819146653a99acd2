"""timm and Transformers beside any build of torchvision, for which neither has any use.

Exports of ours need neither library: they are the other side of golden tests.
"""

from __future__ import annotations

import importlib
from typing import Any

from morvit_deploy.measuring.compare.baselines.timm_beside import load_torchvision


def third_party(name: str) -> Any:
    """The module called `name`."""
    load_torchvision()
    return importlib.import_module(name)
