"""timm where torchvision belongs to another build of PyTorch, is missing, or does not fit at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from morvit_deploy.errors import MissingExtraError, TargetError
from morvit_deploy.measuring.compare.baselines import timm_beside
from morvit_deploy.measuring.compare.baselines.timm_beside import fitting_line, import_timm

# A torchvision whose library does not load, as far as the import goes: it describes an operator that is not there.
WITHOUT_LIBRARY = """
import torch
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets.new_empty(0)
"""
USED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from morvit_deploy.measuring.compare.baselines.timm_beside import load_torchvision
load_torchvision()
import torchvision
assert torchvision.nms
try:
    torch.ops.torchvision.nms(torch.ones(1, 4), torch.ones(1), 0.5)
except NotImplementedError:
    print("a call raises")
"""


def test_operators_are_declared_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text(WITHOUT_LIBRARY)
    ended = subprocess.run([sys.executable, "-c", USED, tmp_path], capture_output=True, text=True)
    assert ended.stdout == "a call raises\n", ended.stderr


def test_what_does_not_fit_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA versions differ")

    monkeypatch.setattr(timm_beside, "load_torchvision", broken)
    with pytest.raises(
        TargetError, match=r"timm cannot be imported \(RuntimeError: CUDA versions differ\); .*pip install"
    ):
        import_timm()


def test_without_torchvision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"torchvision, which is not installed.*morvit-deploy\[zoo\]"):
        import_timm()


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("2.13.0+cpu", '"torchvision==0.28.*" --index-url https://download.pytorch.org/whl/cpu'),
        ("2.13.1", '"torchvision==0.28.*"'),
    ],
)
def test_the_line_that_installs_it(version: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    assert fitting_line() == f"pip install --force-reinstall --no-deps {line}"
