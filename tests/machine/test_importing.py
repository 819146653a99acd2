"""Imports in a child process: what fails, crashes, hangs or exits is named, and the others are still tried."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from morvit_deploy.machine.importing import try_imports

FAST_S = 20.0  # for a process of this Python on a busy machine

SOURCES = {
    "sound_one": "print('noise on stdout')",
    "raises": "raise ImportError('undefined symbol: _ZN4onnx\\nsecond line')",
    "says_nothing": "raise RuntimeError",
    "dies": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
    "leaves": "import os; os._exit(3)",
    "exits": "raise SystemExit('no licence')",
    "sound_two": "",
}


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_each_way_to_fail_is_named(fakes: Path) -> None:
    names = [name.replace("_", "-") for name in SOURCES]  # as distributions are called
    assert try_imports([*names, "no-such-library"], FAST_S) == {
        "sound-one": "",
        "raises": "ImportError: undefined symbol: _ZN4onnx",
        "says-nothing": "RuntimeError: no message",
        "dies": "Python ended while importing: SIGILL",
        "leaves": "Python ended while importing: exit status 3",
        "exits": "SystemExit: no licence",
        "sound-two": "",
        "no-such-library": "ModuleNotFoundError: No module named 'no_such_library'",
    }
    assert not {*SOURCES} & {*sys.modules}, "nothing is imported here"


def test_an_import_that_hangs_is_given_up(fakes: Path) -> None:
    (fakes / "hangs.py").write_text("import time; time.sleep(600)")
    found = try_imports(["hangs", "sound-two"], timeout_s=6.0)
    assert found == {"hangs": "Python gave no reply for 6 s while importing", "sound-two": ""}


def test_a_file_in_the_current_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('mine')")
    (tmp_path / "packaging.py").write_text("raise RuntimeError('mine')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert try_imports(["packaging"], FAST_S) == {"packaging": ""}


def test_nothing_to_try_starts_no_process() -> None:
    assert try_imports([]) == {}
