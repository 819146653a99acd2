"""Output folders are whole or absent, and what is there is kept."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from output_folders import MARKER, marked, names, write

from morvit_deploy.errors import OutputError
from morvit_deploy.files import (
    new_folder,
)


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "a" / "b c" / "out"
    with new_folder(final, marker=MARKER) as partial:
        assert partial.parents[2] == final.parent, "a rename must not cross file systems"
        assert partial.name == final.name, "libraries write the name into files"
        (partial / MARKER).write_text(marked("new"))
        assert not final.exists()
    assert names(final) == [MARKER]
    assert names(final.parent) == ["out"]


def test_a_relative_place_and_the_usual_permissions(inside: Path) -> None:
    write(Path("out"))
    (inside / "plain").mkdir()
    assert (inside / "out").stat().st_mode == (inside / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("existing", [True, False], ids=["replacing", "new"])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException], existing: bool) -> None:
    final = tmp_path / "out"
    if existing:
        write(final, "old")
    with pytest.raises(error), new_folder(final, marker=MARKER, force=True) as partial:
        (partial / MARKER).write_text(marked("half"))
        raise error
    assert names(tmp_path) == (["out"] if existing else [])
    assert not existing or (final / MARKER).read_text() == marked("old")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_full_or_failing_disk_is_one_message(tmp_path: Path, number: int) -> None:
    with pytest.raises(OutputError, match=os.strerror(number)), new_folder(tmp_path / "out", marker=MARKER):
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == []


def test_an_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(OutputError, match=r"out exists; pass --force"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / MARKER).read_text() == marked("old")


def test_force_replaces_what_is_ours(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", marker=MARKER) as partial:
        (partial / MARKER).write_text(marked("old", "more.bin"))
        (partial / "more.bin").write_bytes(b"old")
    write(tmp_path / "out", force=True)
    assert names(tmp_path / "out") == [MARKER]
    assert names(tmp_path) == ["out"]


def test_force_takes_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", force=True)
    assert names(tmp_path / "out") == [MARKER]


def test_force_never_deletes_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=rf"no {MARKER}"):
        write(tmp_path / "out", force=True)
    assert names(tmp_path / "out") == ["thesis.tex"]


@pytest.mark.parametrize("force", [True, False])
def test_a_file_in_the_way_is_refused(tmp_path: Path, force: bool) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="not a folder"):
        write(tmp_path / "out", force=force)
    assert (tmp_path / "out").read_text() == "a file"


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists"):
        write(tmp_path / "out", force=True)


def test_a_link_to_a_folder_does_not_lose_the_folder_behind_it(tmp_path: Path) -> None:
    write(tmp_path / "real", "old")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    write(tmp_path / "out", force=True)
    assert (tmp_path / "out" / MARKER).read_text() == marked("new")
    assert (tmp_path / "real" / MARKER).exists()
    assert names(tmp_path) == ["out", "real"]


@pytest.mark.parametrize("parent", ["file/out", "file/deeper/out"])
def test_a_place_under_a_file_is_refused(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write to"):
        write(tmp_path / parent)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody may make folders")
def test_an_unwritable_place_is_refused() -> None:
    with pytest.raises(OutputError, match="cannot write to /proc"):
        write(Path("/proc/out"))


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may write anywhere: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_read_only_parent_is_refused(ordinary_user: None) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to nobody
        (Path(folder) / "locked").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="Permission denied"):
            write(Path(folder) / "locked" / "out")


def test_force_tells_our_marker_from_another_programs(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MARKER).write_text('{"name": "a web app", "format": 1}')
    (tmp_path / "out" / "index.html").write_text("mine")
    with pytest.raises(OutputError, match="of ours"):
        write(tmp_path / "out", force=True)
    assert names(tmp_path / "out") == ["index.html", MARKER]


def test_force_does_not_take_the_floor_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "out" / "deeper")
    with pytest.raises(OutputError, match="current folder"):
        write(tmp_path / "out", force=True)


@pytest.mark.parametrize("name", ["a**b", "a[b]?", "ü 1"])
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert names(tmp_path) == [name]


def test_a_place_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no name"):
        write(tmp_path / "new" / "..")
    assert names(tmp_path) == []
