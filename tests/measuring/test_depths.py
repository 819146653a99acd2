"""Depth maps for pages: of bundles that return depths, run here, where something can draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bucket_plans import EXPERT

from morvit_deploy.measuring import depths
from morvit_deploy.measuring.depths import depth_picture


def test_a_bundle_that_returns_depths(tiny_bundle: Path, calibration_folder: Path) -> None:
    drawn = depth_picture(tiny_bundle, calibration_folder, upscale=True)
    assert drawn is not None and drawn.page_only
    assert drawn.content is not None and drawn.content.startswith(b"\x89PNG")


def test_others_have_none(
    exported: Callable[..., Path],
    tiny_bundle: Path,
    calibration_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert depth_picture(exported(EXPERT), calibration_folder) is None
    assert depth_picture(exported(EXPERT, target="trt"), calibration_folder) is None
    monkeypatch.setattr(depths, "is_missing", lambda module: module == "matplotlib")
    assert depth_picture(tiny_bundle, calibration_folder, upscale=True) is None
