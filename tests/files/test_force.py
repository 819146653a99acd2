"""`--force` replaces what the tool wrote and lists, and never an input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from output_folders import MARKER, marked, names, needs_signals, write

from morvit_deploy.errors import OutputError
from morvit_deploy.files import (
    any_file,
    check_files,
    check_outside,
    new_folder,
)

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
