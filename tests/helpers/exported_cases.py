"""Bundles of several precisions for a module's tests, exported when asked for. Timings have no place in tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_config

from morvit_deploy.exporters.onnx.low import lower
from morvit_deploy.exporters.onnx.low.speed import Speed

WIDE = make_config(
    embed_dim=64, mlp_dim=128, num_heads=4
)  # of int8 bundles; test_low_precision.py has it, too


@contextmanager
def exported_cases(
    cases: Mapping[str, dict[str, Any]], exported: Callable[..., Path], calibration_folder: Path
) -> Iterator[Callable[[str], Path]]:
    """A function from a case's name to its bundle; the speed of int8 is stated, not measured."""

    def bundle(case: str) -> Path:
        images = {"images": calibration_folder} if case == "int8" else {}
        return exported(WIDE if images else make_config(), **cases[case], **images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lower, "measure_speed", lambda *_: {"topk": Speed(2.0, 1.0, 0.5)})
        yield bundle
