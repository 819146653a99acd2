"""Output folders are whole or absent, whatever stops the writing."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from morvit_deploy.errors import OutputError
from morvit_deploy.files import (
    any_file,
    check_files,
    check_free,
    check_outside,
    locked_folder,
    new_folder,
    of_format,
    publishing,
    temporary,
    write_text,
    write_together,
)

MARKER = "manifest.json"
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


def marked(text: str, *files: str) -> str:
    """A marker file as this tool writes it."""
    return json.dumps({"format": "morvit-test/1", "text": text, "files": files})


def write(final: Path, content: str = "new", force: bool = False) -> None:
    with new_folder(final, marker=MARKER, force=force) as partial:
        (partial / MARKER).write_text(marked(content))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


def test_text_is_written_whole_with_usual_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "report.md", "α\n")
    assert (tmp_path / "new" / "report.md").read_text(encoding="utf-8") == "α\n"
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "new" / "report.md").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert names(tmp_path / "new") == ["report.md"]


def test_text_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "report.md", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder, expected a file name"):
        write_text(tmp_path / "folder", "text")
    assert names(tmp_path) == ["file", "folder"]


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


LISTED = ["model.onnx", "kit/Sources/a.swift"]


def bundle(folder: Path) -> Path:
    """A folder as this tool writes it, with a list of its files."""
    for name in LISTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("ours")
    (folder / MARKER).write_text(marked("old", *LISTED))
    return folder


@pytest.mark.parametrize(
    "name", ["best.pth", "notes.txt", "kit/notes.txt", "photos/cat.jpg", ".git/config", "model.onnx.bak"]
)
def test_force_keeps_what_the_list_does_not_name(tmp_path: Path, name: str) -> None:
    final = bundle(tmp_path / "out")
    (final / name).parent.mkdir(exist_ok=True)
    (final / name).write_text("mine")
    with pytest.raises(OutputError, match=rf"also holds {name}; move what you want to keep"):
        write(final, force=True)
    assert (final / name).read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_force_keeps_links_that_the_list_does_not_name(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "elsewhere"
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        target.mkdir()
    final = bundle(tmp_path / "out")
    (final / "link").symlink_to(target)
    with pytest.raises(OutputError, match="also holds link"):
        write(final, force=True)
    assert (final / "link").is_symlink()


def test_the_message_names_few_of_many_files(tmp_path: Path) -> None:
    final = bundle(tmp_path / "out")
    for number in range(1000):
        (final / f"{number:04}.jpg").write_bytes(b"")
    with pytest.raises(OutputError, match=r"0000\.jpg, 0001\.jpg, 0002\.jpg and 997 more"):
        write(final, force=True)


def test_litter_of_systems_does_not_count(tmp_path: Path) -> None:
    final = bundle(tmp_path / "out")
    for name in (".DS_Store", "._model.onnx", "Thumbs.db", "kit/__pycache__/a.pyc"):
        (final / name).parent.mkdir(exist_ok=True)
        (final / name).write_bytes(b"x")
    (final / "empty").mkdir()
    write(final, force=True)
    assert names(final) == [MARKER]


@pytest.mark.parametrize("content", ["[" * 100_000, '{"format": "morvit-test/1", "files": 3}', "null", ""])
def test_a_broken_marker_is_no_reason_to_delete(tmp_path: Path, content: str) -> None:
    final = bundle(tmp_path / "out")
    (final / MARKER).write_text(content)
    with pytest.raises(OutputError):
        write(final, force=True)
    assert (final / "model.onnx").exists()


@needs_signals
def test_a_marker_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    final = tmp_path / "out"
    final.mkdir()
    os.mkfifo(final / MARKER)
    with pytest.raises(OutputError, match=f"no {MARKER} of ours"):
        write(final, force=True)


def held(kind: str, folder: Path, out: Path) -> Path:
    """An input of the command, which lies in `out` in one way or another."""
    if kind == "itself":
        return out
    if kind == "inside":
        return out / LISTED[0]
    if kind == "given as a link":
        (folder / "link").symlink_to(out / LISTED[0])
        return folder / "link"
    if kind == "a folder of links":
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / "model.safetensors").symlink_to(out / LISTED[0])
        return folder / "checkpoint"
    if kind == "through a linked folder":
        (folder / "alias").symlink_to(out)
        return folder / "alias" / LISTED[0]
    return out / ".." / out.name / "kit"


@pytest.mark.parametrize(
    "kind",
    [
        "itself",
        "inside",
        "given as a link",
        "a folder of links",
        "through a linked folder",
        "with dots in its path",
    ],
)
def test_force_never_takes_an_input(tmp_path: Path, kind: str) -> None:
    """All of these files are ours and listed; still this command reads them."""
    out = bundle(tmp_path / "out")
    given = held(kind, tmp_path, out)
    with (
        pytest.raises(OutputError, match="an input of this command"),
        new_folder(out, marker=MARKER, force=True, inputs=(None, given)),
    ):
        raise AssertionError("found too late")
    assert names(out) == sorted([MARKER, "model.onnx", "kit"])


def test_an_input_elsewhere_is_no_obstacle(tmp_path: Path) -> None:
    out = bundle(tmp_path / "out")
    other = bundle(tmp_path / "output")
    with new_folder(out, marker=MARKER, force=True, inputs=(other, tmp_path / "missing")):
        pass
    assert names(out) == []


def test_an_output_among_the_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for inside in ("photos", "photos/maps", "photos/../photos/a/b"):
        with pytest.raises(OutputError, match="choose a place outside"):
            check_outside(tmp_path / inside, tmp_path / "photos")
    check_outside(tmp_path / "photos2", tmp_path / "photos")
    check_outside(tmp_path / "photos", None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("--force", "looks like an option"),
        ("-out", "looks like an option"),
        ("~", "the shell did not replace ~"),
        ("~/bundles/out", "the shell did not replace ~"),
        ("n" * 300, "File name too long"),
        ("n/" * 3000, "File name too long"),
    ],
)
def test_a_name_that_cannot_be_meant_is_refused(inside: Path, name: str, words: str) -> None:
    with pytest.raises(OutputError, match=words):
        write(Path(name))
    with pytest.raises(OutputError, match=words):
        check_files([Path(name)], force=True, replaces=any_file)
    assert names(inside) == []


@pytest.mark.parametrize(
    "name", ["out/", "./out", "deep/../out", "a~b", "~nobody-of-this-name", "n" * 250, "ü" * 125]
)
def test_a_name_that_can_be_meant_is_taken(inside: Path, name: str) -> None:
    (inside / "deep").mkdir()
    write(Path(name))
    assert (inside / name / MARKER).is_file()
    assert not [one for one in names(inside) if ".partial-" in one]


def test_the_current_folder_is_no_output(inside: Path) -> None:
    for force in (True, False):
        with pytest.raises(OutputError, match=r"exists|current folder"):
            write(Path(), force=force)


def plan(folder: Path) -> Path:
    """A single file as this tool writes it."""
    (folder / "plan.json").write_text('{"format": "morvit-plan/1"}')
    return folder / "plan.json"


IS_PLAN = of_format("morvit-plan/")


@pytest.mark.parametrize(
    "content",
    [
        '{"format": "morvit/1"}',
        '{"format": "morvit-bundle/2"}',
        '{"a": 1}',
        "[1]",
        "notes",
        "\0\1",
        '{"format": 3}',
    ],
)
def test_force_replaces_a_file_only_where_it_is_of_the_same_kind(tmp_path: Path, content: str) -> None:
    """The config.json of a checkpoint is ours, too, and no plan."""
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(OutputError, match="holds something else"):
        check_files([path], force=True, replaces=IS_PLAN)
    with pytest.raises(OutputError, match="holds something else"):
        write_text(path, "new", replaces=IS_PLAN)
    assert path.read_text() == content


def test_force_replaces_a_file_of_the_same_kind_and_an_empty_one(tmp_path: Path) -> None:
    write_text(plan(tmp_path), "new", replaces=IS_PLAN)
    (tmp_path / "empty").touch()
    write_text(tmp_path / "empty", "new", replaces=IS_PLAN)
    assert (tmp_path / "plan.json").read_text() == (tmp_path / "empty").read_text() == "new"
    assert names(tmp_path) == ["empty", "plan.json"]


def test_without_force_a_file_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists; pass --force"):
        write_text(plan(tmp_path), "new")
    with pytest.raises(OutputError, match="exists; pass --force"):
        check_files([plan(tmp_path)], force=False, replaces=IS_PLAN)


@needs_signals
@pytest.mark.parametrize("kind", ["device", "pipe", "socket", "dangling"])
def test_what_is_no_ordinary_file_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = Path(os.devnull) if kind == "device" else tmp_path / "out.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(path))
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="not an ordinary file"):
        check_files([path], force=True, replaces=any_file)
    with pytest.raises(OutputError, match="not an ordinary file"):
        write_text(path, "new", replaces=any_file)
    assert os.path.lexists(path)
    assert not (tmp_path / "nowhere").exists()


def test_a_link_to_a_file_is_replaced_and_what_it_leads_to_is_kept(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(plan(tmp_path).name)
    write_text(tmp_path / "link.json", "new", replaces=IS_PLAN)
    assert not (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "link.json").read_text() == "new"
    assert IS_PLAN(tmp_path / "plan.json")


@pytest.mark.parametrize("how", ["itself", "hard link", "link"])
def test_a_file_that_is_an_input_is_never_replaced(tmp_path: Path, how: str) -> None:
    given = path = plan(tmp_path)
    if how != "itself":
        path = tmp_path / "other.json"
        path.hardlink_to(given) if how == "hard link" else path.symlink_to(given)
    with pytest.raises(OutputError, match="an input of this command"):
        check_files([path], force=True, replaces=IS_PLAN, inputs=[given])


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = publishing._place

    def late(new: Path, final: Path) -> None:
        final.write_text("mine")
        place(new, final)

    monkeypatch.setattr(publishing, "_place", late)
    with pytest.raises(OutputError, match="appeared while this command ran"):
        write_text(tmp_path / "out.json", "new", replaces=IS_PLAN)
    assert (tmp_path / "out.json").read_text() == "mine"
    assert names(tmp_path) == ["out.json"]


def test_without_hard_links_a_file_is_not_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and some network drives have none."""

    def refused(*paths: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
    new = tmp_path / "new"
    new.write_text("newer")
    with pytest.raises(OutputError, match="appeared"):
        publishing._place(new, tmp_path / "a.json")
    with pytest.raises(FileExistsError):
        publishing._place_file(new, tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "new"


def together(folder: Path) -> dict[Path, bytes]:
    return {
        folder / "plan.pareto.json": b"new",
        folder / "plan.pareto.png": b"new",
        folder / "plan.json": b"new",
    }


@pytest.mark.parametrize("existing", [True, False], ids=["replacing", "new"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, None])
def test_files_that_belong_together_are_written_all_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool, number: int | None
) -> None:
    """The last of them fails: a full disk, or an interrupt."""
    if existing:
        for path in together(tmp_path):
            path.write_text("old")
    place = publishing._place

    def failing(new: Path, final: Path) -> None:
        if final.name == "plan.json":
            raise KeyboardInterrupt if number is None else OSError(number, os.strerror(number))
        place(new, final)

    monkeypatch.setattr(publishing, "_place", failing)
    with pytest.raises(KeyboardInterrupt if number is None else OutputError):
        write_together(together(tmp_path), replaces=any_file)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == (
        {path.name: "old" for path in together(tmp_path)} if existing else {}
    )


@needs_signals
def test_a_limit_of_file_size_is_one_message(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match="ulimit -f"):
            write_together({tmp_path / "a": b"x", tmp_path / "b": b"x" * 2000})
        with (
            pytest.raises(OutputError, match="ulimit -f"),
            new_folder(tmp_path / "out", marker=MARKER) as partial,
        ):
            (partial / "model").write_bytes(b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    """On a disk that ignores case they are one folder; nothing of it is lost there, and nothing here."""
    write(tmp_path / "out", "old")
    try:
        write(tmp_path / "OUT")
    except OutputError:
        assert (tmp_path / "out" / MARKER).read_text() == marked("old")
    else:
        assert names(tmp_path) == ["OUT", "out"]


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
