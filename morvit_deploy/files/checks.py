"""What an output may replace: nothing without `--force`; with it, only what this tool wrote, and no input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypedDict

from morvit_deploy.errors import MorvitError, OutputError
from morvit_deploy.files.ours import Lists, Replaces, foreign_files, own_list, read_ours

_NAMED = 3  # files in a message
FORCE = "--force replaces only what this tool wrote"


class Place(TypedDict):
    """What may be replaced at a place: arguments of `check_free` and `new_folder`."""

    marker: str
    lists: Lists
    force: bool
    inputs: tuple[Path | None, ...]


def check_place(
    final: Path, *, marker: str, lists: Lists = own_list, force: bool, inputs: Iterable[Path | None] = ()
) -> None:
    """Raise OutputError unless `final` is absent and can be written, or `force` may replace it.

    A folder is replaced if it is empty, or if its `marker`, a JSON file, has a `format` of ours and `lists` returns
    the names of all other files in it. Nothing is replaced that is an input or holds one.
    """
    check_name(final)
    final = final.absolute()
    if not _exists(final):
        _check_parent(final)
        return
    _check_inputs(final, inputs)
    if not final.is_dir():
        raise OutputError(f"{final} exists and is not a folder; choose another place")
    if not force:
        raise OutputError(f"{final} exists; pass --force to replace it, or choose another place with -o")
    if Path.cwd().is_relative_to(final.resolve()):
        raise OutputError(f"{final} is the current folder or holds it; it cannot be replaced from inside")
    _check_parent(final)
    check_content(final, final, marker=marker, lists=lists)


def check_content(folder: Path, final: Path, *, marker: str, lists: Lists) -> None:
    """OutputError if `folder`, which is or was at `final`, holds anything that is not ours."""
    try:
        is_empty = not any(folder.iterdir())
    except FileNotFoundError:  # another process took it
        return
    except OSError as error:
        raise OutputError(f"cannot read {final}: {error.strerror}; choose another place") from None
    if is_empty:
        return
    content = read_ours(folder / marker)
    if content is None:
        raise OutputError(
            f"{FORCE}, and {final} has no {marker} of ours; remove it yourself or choose another place"
        )
    foreign = list(foreign_files(folder, [marker, *lists(folder, content)]))
    if foreign:
        more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        raise OutputError(
            f"{FORCE}, and {final} also holds {', '.join(foreign[:_NAMED])}{more}; move what you want to keep, "
            "remove the rest, or choose another place with -o"
        )


def check_files(
    files: Iterable[Path], *, force: bool, replaces: Replaces, inputs: Iterable[Path | None] = ()
) -> None:
    """OutputError for a file that cannot be written, or that exists, unless `force` and `replaces` allow it."""
    inputs = list(inputs)
    for path in files:
        check_name(path)
        if _exists(path):
            if path.is_dir():
                raise OutputError(f"-o {path} is a folder, expected a file name")
            _check_inputs(path, inputs)
            _check_ordinary(path, path)
            if not force:
                raise OutputError(
                    f"{path} exists; pass --force to replace it, or choose another place with -o"
                )
            check_file(path, path, replaces)
        _check_parent(path.absolute())


def check_file(path: Path, final: Path, replaces: Replaces) -> None:
    """OutputError if the file, which is or was at `final`, is not ours."""
    _check_ordinary(path, final)
    if path.stat().st_size and not replaces(path):
        raise OutputError(
            f"{FORCE} there before, and {final} holds something else; remove it yourself or choose another place"
        )


def _check_ordinary(path: Path, final: Path) -> None:
    """OutputError for a device, a pipe, a socket or a broken link; a link to a file is followed."""
    if not path.is_file():
        raise OutputError(f"{final} exists and is not an ordinary file; choose another place")


def check_outside(final: Path, folder: Path | None) -> None:
    """OutputError for an output inside a folder of images, where the next run would read it as an image."""
    if folder is not None and folder.is_dir() and _is_in(final, folder):
        raise OutputError(
            f"{final} lies in {folder}, whose images this command reads; choose a place outside of it"
        )


def check_name(path: Path) -> None:
    """OutputError for a name that the user cannot have meant."""
    if path.absolute().name in ("", ".."):
        raise OutputError(f"{path} has no name of its own; choose another place")
    text = str(path)
    if text.startswith("-"):
        raise OutputError(
            f"got {text!r} as the output, which looks like an option; give -o the name to write"
        )
    if text.startswith("~") and (meant := os.path.expanduser(text)) != text:  # noqa: PTH111  # no error for ~nobody
        raise OutputError(f"got {text!r} as the output, in which the shell did not replace ~; write {meant}")


def check_utf8(path: Path, error: type[MorvitError] = OutputError) -> None:
    """Raise `error` for the place of a model if its name is not UTF-8, which libraries in C++ require."""
    name = str(path.absolute())
    if any("\udc80" <= letter <= "\udcff" for letter in name):  # stand for bytes that could not be decoded
        shown = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise error(
            f"got the path {shown}, expected one in UTF-8: the libraries that read and write models open no other; "
            "rename it"
        )


def _exists(path: Path) -> bool:
    """Is there anything, a broken link included? OutputError for a name that the system refuses."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror}; choose another place") from None
    return True


def _check_parent(final: Path) -> None:
    """OutputError, before any work, if a new name cannot be made."""
    parent = next(path for path in final.parents if os.path.lexists(path))
    if not parent.is_dir():
        raise OutputError(f"cannot write to {final.parent}: {parent} is not a folder; choose another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write to {final.parent}: Permission denied, or it is read-only; choose another place"
        )


def _check_inputs(final: Path, inputs: Iterable[Path | None]) -> None:
    """OutputError if an existing `final` is an input, or holds one or what one links to."""
    for given in inputs:
        if given is None:
            continue
        for path in (given, *_links_in(given)):
            if _is_in(path, final):
                how = "is" if _same(given, final) else f"holds {path}, or what it links to,"
                raise OutputError(f"{final} {how} an input of this command; choose another place with -o")


def _is_in(path: Path, folder: Path) -> bool:
    """Is `path`, or what it links to, `folder` or in it? By identity: names may be links or differ in case."""
    given, real = path.absolute(), Path(os.path.realpath(path))
    return any(_same(one, folder) for one in (given, *given.parents, real, *real.parents))


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)  # noqa: PTH121  # the method is this one
    except OSError:
        return False


def _links_in(folder: Path) -> Iterator[Path]:
    """Links in a folder; such a folder has its data elsewhere."""
    for place, folders, files in os.walk(folder):
        yield from (path for name in (*folders, *files) if (path := Path(place, name)).is_symlink())
