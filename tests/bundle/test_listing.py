"""Which files of a folder are pictures: one rule, and what it skips is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from morvit_deploy.bundle.listing import described, list_pictures
from morvit_deploy.errors import ImageError


def put(folder: Path, *names: str) -> Path:
    """Files that nobody opens, so their content does not matter."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_pictures(folder).files]


def skipped(folder: Path) -> dict[str, int]:
    return dict(list_pictures(folder).skipped)


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    """Notebooks and macOS leave copies of pictures in them."""
    put(tmp_path, "0/a.png", "0/._a.png", ".ipynb_checkpoints/a-checkpoint.png", ".DS_Store", "5/b.png")
    assert names(tmp_path) == ["0/a.png", "5/b.png"]
    assert skipped(tmp_path) == {"hidden": 3}


def test_a_hidden_folder_that_is_asked_for_is_listed(tmp_path: Path) -> None:
    assert names(put(tmp_path / ".cache", "a.png")) == ["a.png"]


@pytest.mark.parametrize("suffix", ["heic", "HEIF", "avif", "eps", "jxl", "pdf", "CR2"])
def test_photographs_that_are_not_read_are_named(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, "a.png", f"b.{suffix}", f"c.{suffix}")
    assert names(tmp_path) == ["a.png"]
    assert described(list_pictures(tmp_path).skipped) == (
        f"2 .{suffix.lower()} (not supported; convert to PNG or JPEG)"
    )


def test_suffixes_in_any_case(tmp_path: Path) -> None:
    put(tmp_path, "a.PNG", "b.JPeG", "c.Tif", "d.jfif", "e.PGM", "notes.TXT", "Thumbs.db", "png", "f.png.bak")
    assert names(tmp_path) == ["a.PNG", "b.JPeG", "c.Tif", "d.jfif", "e.PGM"]
    assert skipped(tmp_path) == {"without an image suffix": 4}


def test_files_of_this_package_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "labels.csv", "plan.pareto.png")
    assert names(tmp_path) == ["a.png"] and skipped(tmp_path) == {}


def test_links_are_followed_once(tmp_path: Path) -> None:
    """A class folder may be a link to a dataset; the folder that is there itself comes first."""
    elsewhere = put(tmp_path / "elsewhere", "a.png", "deep/b.png")
    folder = put(tmp_path / "photos", "z/c.png")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "a-link").symlink_to(folder / "z")
    (folder / "d.png").symlink_to(elsewhere / "a.png")
    assert names(folder) == ["again/a.png", "again/deep/b.png", "d.png", "z/c.png"]
    assert skipped(folder) == {"linked folder that is listed already": 2}


def test_circles_of_links_end(tmp_path: Path) -> None:
    folder = put(tmp_path / "photos", "a.png", "sub/b.png")
    (folder / "sub" / "up").symlink_to("..")
    (folder / "self").symlink_to("self")
    (folder / "self.png").symlink_to("self.png")
    assert names(folder) == ["a.png", "sub/b.png"]
    assert skipped(folder) == {
        "linked folder that is listed already": 1,
        "without an image suffix": 1,
        "broken link": 1,
    }


def test_links_to_nothing_and_pipes(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to("gone.png")
    os.mkfifo(tmp_path / "c.png")
    (tmp_path / "d.png").symlink_to("/dev/zero")
    assert names(tmp_path) == ["a.png"]
    assert skipped(tmp_path) == {"broken link": 1, "pipe or device": 2}


def test_a_folder_with_a_pictures_name_is_a_folder(tmp_path: Path) -> None:
    assert names(put(tmp_path, "album.png/a.png")) == ["album.png/a.png"]


def test_an_empty_file_is_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    """It is one that was not copied whole: it is reported as unreadable, not skipped."""
    (tmp_path / "a.png").write_bytes(b"")
    assert names(tmp_path) == ["a.png"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures would silently be missing."""
    put(tmp_path, "a.png", "private/b.png")
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(ImageError, match=r"cannot list .*private: Permission denied; make it readable"):
        list_pictures(tmp_path)
