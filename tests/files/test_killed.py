"""What a killed run left is swept, and what it had moved aside comes back."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from output_folders import MARKER, marked, names, needs_signals, write

from morvit_deploy.errors import OutputError
from morvit_deploy.files import check_free, locked_folder, new_folder, temporary


def killed(code: str, *arguments: object) -> None:
    """Run code that kills its own process, as a power cut or the out-of-memory killer would."""
    head = "import os, signal, sys\nfrom pathlib import Path\nfrom morvit_deploy.files import *\n"
    end = "def die(*_):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run(
        [sys.executable, "-c", head + end + code, *map(str, arguments)], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


WHILE_WRITING = """
with new_folder(Path(sys.argv[1]), marker="manifest.json", force=True) as partial:
    (partial / "weights.bin").write_bytes(b"x")
    die()
"""


BETWEEN_RENAMES = """
import morvit_deploy.files.publishing as publishing
publishing._place = die
with new_folder(Path(sys.argv[1]), marker="manifest.json", force=True) as partial:
    (partial / "manifest.json").write_text("new")
"""


@needs_signals
def test_what_a_killed_run_left_is_swept_and_a_running_ones_is_not(tmp_path: Path) -> None:
    killed(WHILE_WRITING, tmp_path / "out")
    killed(WHILE_WRITING, tmp_path / "out2")
    stale = {name for name in names(tmp_path) if name.startswith(".out.")}
    assert len(stale) == 1
    with locked_folder(tmp_path, ".out.partial-") as running:
        assert not stale & set(names(tmp_path))
        write(tmp_path / "out")
        assert running.is_dir()
        assert [name.split(".partial-")[0] for name in names(tmp_path)] == [".out", ".out2", "out"]
    assert [name.split(".partial-")[0] for name in names(tmp_path)] == [".out2", "out"]


@needs_signals
def test_an_old_bundle_moved_aside_by_a_killed_run_is_not_lost(tmp_path: Path) -> None:
    """Killed between the two renames: the old bundle is only under its temporary name. It comes back."""
    write(tmp_path / "out", "old")
    killed(BETWEEN_RENAMES, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "out", marker=MARKER, force=True):
        raise ValueError("stop")
    assert (tmp_path / "out" / MARKER).read_text() == marked("old")
    assert names(tmp_path) == ["out"]


@needs_signals
def test_what_comes_back_is_found_before_the_work(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    killed(BETWEEN_RENAMES, tmp_path / "out")
    with pytest.raises(OutputError, match="exists; pass --force"):
        check_free(tmp_path / "out", marker=MARKER)


@needs_signals
def test_what_comes_back_never_replaces_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    killed(BETWEEN_RENAMES, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=f"no {MARKER}"):
        write(tmp_path / "out", force=True)
    assert names(tmp_path) == ["out", "out.old1"]
    assert (tmp_path / "out.old1" / MARKER).read_text() == marked("old")


@needs_signals
def test_temporary_folders_are_swept_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    killed("with temporary('convert') as folder:\n    (folder / 'model').write_bytes(b'x')\n    die()\n")
    assert len(names(tmp_path)) == 1
    with temporary("convert") as first, temporary("convert") as second:
        assert set(tmp_path.iterdir()) == {first, second}
    assert names(tmp_path) == []


def test_no_place_for_temporary_files_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(OutputError, match="TMPDIR"), temporary("convert"):
        pass


def test_locks_that_a_file_system_lacks_are_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without locks nothing is swept, as nobody can tell whose process has ended."""
    from morvit_deploy.files import locks

    def refused(file: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "_lock", refused)
    with locked_folder(tmp_path, ".out.partial-") as running:
        write(tmp_path / "out")
        assert running.is_dir()
    assert names(tmp_path) == ["out"]


def test_a_temporary_folder_that_is_swept_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make: Callable[..., str] = tempfile.mkdtemp
    taken = iter([True, False])

    def swept(**options: object) -> str:
        folder = make(**options)
        if next(taken):
            Path(folder).rmdir()
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    with locked_folder(tmp_path, ".out.partial-") as folder:
        assert folder.is_dir()
