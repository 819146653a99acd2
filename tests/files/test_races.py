"""What appears while a command runs is kept; of two writers one wins, whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from output_folders import MARKER, marked, names, needs_signals, write

from morvit_deploy.errors import OutputError
from morvit_deploy.files import (
    new_folder,
    publishing,
)


def appears(final: Path) -> None:
    """Another program makes a folder meanwhile."""
    final.mkdir()
    (final / "thesis.tex").write_text("years of work")


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_that_appears_meanwhile_is_kept(tmp_path: Path, force: bool) -> None:
    final = tmp_path / "out"
    with pytest.raises(OutputError), new_folder(final, marker=MARKER, force=force) as partial:
        (partial / MARKER).write_text(marked("new"))
        appears(final)
    assert names(tmp_path) == ["out"]
    assert names(final) == ["thesis.tex"]


def test_a_folder_that_appears_between_the_two_renames_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be replaced cannot return to its name; it is kept beside."""
    final, place = tmp_path / "out", publishing._place
    write(final, "old")

    def late(new: Path, there: Path) -> None:
        appears(there)
        place(new, there)

    monkeypatch.setattr(publishing, "_place", late)
    with pytest.raises(OutputError, match="appeared while this command ran"):
        write(final, force=True)
    assert names(final) == ["thesis.tex"]
    assert (tmp_path / "out.old1" / MARKER).read_text() == marked("old")
    assert names(tmp_path) == ["out", "out.old1"]


def test_notes_that_appear_in_a_bundle_meanwhile_are_kept(tmp_path: Path) -> None:
    final = tmp_path / "out"
    write(final, "old")
    with (
        pytest.raises(OutputError, match=r"also holds notes\.txt"),
        new_folder(final, marker=MARKER, force=True),
    ):
        (final / "notes.txt").write_text("mine")
    assert names(final) == [MARKER, "notes.txt"]
    assert names(tmp_path) == ["out"]


def test_of_two_writers_of_one_name_the_later_fails(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with (
        pytest.raises(OutputError, match="appeared while this command ran"),
        new_folder(final, marker=MARKER) as later,
    ):
        (later / MARKER).write_text(marked("later"))
        write(final, "earlier")
    assert (final / MARKER).read_text() == marked("earlier")
    assert names(tmp_path) == ["out"]


def test_of_two_forced_writers_the_last_one_stays(tmp_path: Path) -> None:
    final = tmp_path / "out"
    write(final, "old")
    with new_folder(final, marker=MARKER, force=True) as later:
        (later / MARKER).write_text(marked("later"))
        write(final, "earlier", force=True)
    assert (final / MARKER).read_text() == marked("later")
    assert names(tmp_path) == ["out"]


@needs_signals
def test_many_forced_writers_leave_one_whole_folder(tmp_path: Path) -> None:
    """Each of them ends well, or says why not; what is left at the name is one of theirs, complete."""
    code = """
import sys
from pathlib import Path
from morvit_deploy.errors import OutputError
from morvit_deploy.files import new_folder
for turn in range(40):
    try:
        with new_folder(Path(sys.argv[1]), marker="manifest.json", force=True) as partial:
            text = '{"format": "morvit-test/1", "files": ["a.bin"]}'
            (partial / "manifest.json").write_text(text)
            (partial / "a.bin").write_text(sys.argv[2] * 1000)
    except OutputError:
        pass
"""
    final = tmp_path / "out"
    write(final, "old")
    together = [subprocess.Popen([sys.executable, "-c", code, str(final), word]) for word in "abc"]
    assert [process.wait() for process in together] == [0, 0, 0]
    assert names(final) == ["a.bin", MARKER]
    assert len(set((final / "a.bin").read_text())) == 1
    left = [name for name in names(tmp_path) if ".old" not in name]
    assert left == ["out"], "no temporary folder"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_between_the_renames_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], when: str
) -> None:
    """Before the second rename the old folder returns; after it, the new one is complete and stays."""
    place, final = publishing._place, tmp_path / "out"
    write(final, "old")

    def interrupted(new: Path, there: Path) -> None:
        if when == "after":
            place(new, there)
        raise error

    monkeypatch.setattr(publishing, "_place", interrupted)
    with pytest.raises(error):
        write(final, force=True)
    assert (final / MARKER).read_text() == marked("old" if when == "before" else "new")
    assert names(tmp_path) == ["out"]


def test_an_interrupt_while_cleaning_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([KeyboardInterrupt, None])
    put_back = publishing._put_back

    def interrupted(folder: Path) -> None:
        if error := next(moments):
            raise error
        put_back(folder)

    monkeypatch.setattr(publishing, "_put_back", interrupted)
    with pytest.raises(KeyboardInterrupt), publishing._beside(tmp_path / "out"):
        pass
    assert names(tmp_path) == []
