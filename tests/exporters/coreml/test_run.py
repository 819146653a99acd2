"""How a package is interpreted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_config, random_pixels

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.machine import this
from morvit_deploy.model import threads as counting


@pytest.fixture
def bundle(exported: Callable[..., Path]) -> Path:
    return exported(make_config(), target="coreml", precision="fp32")


@pytest.fixture
def used(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of PyTorch's threads at each run of the bundle, on a machine of three cores."""
    seen: list[int] = []
    run = MilPackage.run

    def counted(package: MilPackage, *given: Any, **named: Any) -> Any:
        seen.append(torch.get_num_threads())
        return run(package, *given, **named)

    monkeypatch.setattr(MilPackage, "run", counted)
    monkeypatch.setattr(this, "available_cores", lambda: 3)
    return seen


def run_with(bundle: Path, threads: int | None) -> None:
    with open_bundle(bundle, threads=threads) as session:
        session.run(random_pixels(make_config(), 1))


def test_threads_of_a_small_model_would_wait_for_each_other(
    bundle: Path, used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    run_with(bundle, None)
    run_with(bundle, 2)
    monkeypatch.setattr(counting, "_SMALL_MACS", 1)
    run_with(bundle, None)
    assert used == [1, 2, 3] and torch.get_num_threads() == before


def test_too_many_threads_are_refused(bundle: Path) -> None:
    with pytest.raises(TargetError, match="10000 threads"):
        open_bundle(bundle, threads=10_000)
