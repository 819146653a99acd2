"""Single files are whole or absent, and replaced only by the same kind."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
from output_folders import MARKER, marked, names, needs_signals, write

from morvit_deploy.errors import OutputError
from morvit_deploy.files import (
    any_file,
    check_files,
    new_folder,
    of_format,
    publishing,
    write_text,
    write_together,
)


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
