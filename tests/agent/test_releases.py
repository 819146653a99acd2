"""Versions against the oldest release that will do, as every runtime writes them."""

from __future__ import annotations

import sys

import pytest

from morvit_deploy.agent import runtimes
from morvit_deploy.agent.core import releases
from morvit_deploy.agent.core.faults import Lacking
from morvit_deploy.agent.core.releases import check_release, is_older, not_importable, release


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("1.16.3", (1, 16, 3)),
        ("1.20.0", (1, 20)),
        ("1.20.0.dev20260101", (1, 20)),
        ("1.20.0rc1", (1, 20)),
        ("1.20.1.post2", (1, 20, 1)),
        ("1.23.2+cu130", (1, 23, 2)),
        ("1.100", (1, 100)),
        ("main", ()),
        ("", ()),
    ],
)
def test_a_version_is_the_numbers_that_it_begins_with(version: str, numbers: tuple[int, ...]) -> None:
    assert release(version) == numbers


@pytest.mark.parametrize(
    ("version", "lowest", "older"),
    [
        ("1.9.2", "1.16", True),  # by numbers, not by letters
        ("1.15.1", "1.16", True),
        ("1.16", "1.16.0", False),
        ("1.16.0", "1.16", False),
        ("1.16.3", "1.16", False),
        ("1.16.3", "1.16.4", True),
        ("1.20.0.dev1", "1.20", False),  # a nightly build counts as its release
        ("2.0", "1.31", False),
        ("main", "1.16", True),
    ],
)
def test_older(version: str, lowest: str, older: bool) -> None:
    assert is_older(version, lowest) is older


def test_the_message_has_both_versions_and_the_line() -> None:
    check_release("onnxruntime", "1.19.2", "1.19", "the bundle")
    with pytest.raises(Lacking) as refused:
        check_release("onnxruntime", "1.16.3", "1.19", "the bundle")
    assert str(refused.value) == (
        "the bundle requires onnxruntime 1.19 or newer, got 1.16.3; "
        f'run `{sys.executable} -m pip install "onnxruntime>=1.19"`'
    )


def test_the_line_names_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {"onnxruntime-gpu": "1.16.3"}
    monkeypatch.setattr(releases, "installed", have.get)
    assert releases.update_line("onnxruntime", "1.19").endswith('pip install "onnxruntime-gpu>=1.19"')


@pytest.mark.parametrize(
    ("have", "hint"),
    [
        ({"onnxruntime": "1.16.3", "numpy": "2.1.0"}, True),
        ({"onnxruntime": "1.16.3", "numpy": "1.26.4"}, False),
        ({"onnxruntime": "1.19.2", "numpy": "2.1.0"}, False),
        ({"onnxruntime": "1.16.3"}, False),
    ],
)
def test_numpy_2_beside_an_old_runtime_is_named(
    have: dict[str, str], hint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "installed", have.get)
    said = not_importable("onnxruntime", ImportError())
    assert said.startswith("cannot import onnxruntime: ImportError")
    assert ("onnxruntime 1.16.3 requires numpy below 2, got 2.1.0: run `" in said) is hint


def test_a_board_is_held_to_what_the_bundle_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "1.20.0.dev20240901")
    assert runtimes.check_runtime("onnx", {"onnxruntime": "1.20"})["onnxruntime"] == "1.20.0.dev20240901"
    with pytest.raises(Lacking) as refused:
        runtimes.check_runtime("onnx", {"onnxruntime": "1.21"})
    assert "onnxruntime 1.20.0.dev20240901, expected 1.21 or newer; on the device run" in str(refused.value)
    assert 'pip install numpy "onnxruntime>=1.21"' in str(refused.value)
