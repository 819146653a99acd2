"""timm beside any build of torchvision.

timm imports torchvision, whose operators are in a library that belongs to one build of PyTorch. Beside another build
they are missing, and the import of torchvision fails when it describes them. No classifier of timm calls them (they
are for detection), so their schemas are declared: the import succeeds, and a call of one would still raise.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import torch

from morvit_deploy.errors import TargetError
from morvit_deploy.machine.extras import names_extra

MISSING = "operator torchvision::"  # begins the error of a torchvision without its library
OPERATORS = ("nms", "qnms")  # that its import describes
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_DECLARED: list[torch.library.Library] = []  # kept: a collected library takes its operators along


@names_extra("a baseline of timm")
def import_timm() -> Any:
    """The module; MissingExtraError without it, TargetError where it cannot be imported."""
    try:
        load_torchvision()
        return import_module("timm")
    except ModuleNotFoundError:
        raise
    except Exception as error:  # of libraries that do not fit together
        raise TargetError(
            f"timm cannot be imported ({type(error).__name__}: {error}); install the torchvision that was built for "
            f"PyTorch {torch.__version__}: `{fitting_line()}`"
        ) from error


def load_torchvision() -> None:
    """Import torchvision, with its operators declared where its own library does not load."""
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if MISSING not in str(error) or _DECLARED:
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # what the failed import has left
        library = torch.library.Library("torchvision", "DEF")
        for operator in OPERATORS:
            library.define(f"{operator}{SCHEMA}")
        _DECLARED.append(library)
        import_module("torchvision")


def fitting_line() -> str:
    """The line that installs the torchvision of this PyTorch: its minor release is 15 ahead, since PyTorch 2.0."""
    release, _, build = torch.__version__.partition("+")
    minor = int(release.split(".")[1]) + 15
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return f'pip install --force-reinstall --no-deps "torchvision==0.{minor}.*"{index}'
