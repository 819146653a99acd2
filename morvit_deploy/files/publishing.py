"""Writes files and folders completely or not at all: a temporary folder beside them, then a rename.

The temporary folder `.NAME.partial-…` has `lock`, `new/NAME` and, while something is replaced, `old/NAME`. `old/NAME`
goes back to its place unless `new/NAME` has taken it, also in the next run where this one was killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from morvit_deploy.errors import OutputError
from morvit_deploy.files.checks import check_content, check_file, check_files, check_place
from morvit_deploy.files.locks import locked_folder, sweep
from morvit_deploy.files.ours import Lists, Replaces, no_file, own_list

NEW, OLD = "new", "old"
_STEM = 100  # bytes of the name in the temporary folder's: file systems allow 255 for all
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
_NOT_WRITTEN = {
    errno.ENOSPC: "free some space and repeat",
    errno.EDQUOT: "free some of your quota and repeat",
    errno.EFBIG: "the file system, or a limit of the shell (ulimit -f), allows no larger file",
    errno.EROFS: "choose a place that is not read-only",
    errno.EIO: "the disk failed; choose another place",
}

Check = Callable[
    [Path, Path], None
]  # what lies at a path and was at another: OutputError unless it may be replaced


def check_free(
    final: Path,
    *,
    marker: str,
    lists: Lists = own_list,
    force: bool = False,
    inputs: Iterable[Path | None] = (),
) -> None:
    """As `check_place`, which says what `force` replaces; first returns what a killed run had moved aside."""
    with contextlib.suppress(OSError):  # there may be no such folder yet
        sweep(final.absolute().parent, _prefix(final), _put_back)
    check_place(final, marker=marker, lists=lists, force=force, inputs=inputs)


@contextlib.contextmanager
def new_folder(
    final: Path,
    *,
    marker: str,
    lists: Lists = own_list,
    force: bool = False,
    inputs: Iterable[Path | None] = (),
) -> Iterator[Path]:
    """Yield an empty folder that becomes `final` when the block ends without an error.

    An existing `final`, even one that appeared meanwhile, is refused; with `force` it is replaced under the
    conditions of `check_place`. Raises OutputError when the place cannot be written.
    """
    check_free(final, marker=marker, lists=lists, force=force, inputs=inputs)
    final = final.absolute()  # not resolve(): a link keeps its name

    def replaceable(folder: Path, place: Path) -> None:
        if not folder.is_dir():
            raise OutputError(f"{place} exists and is not a folder; choose another place")
        check_content(folder, place, marker=marker, lists=lists)

    with _beside(final) as folder:
        partial = folder / NEW / final.name
        partial.mkdir()
        yield partial
        _publish(folder, [final], replaceable if force else None)


def write_text(final: Path, text: str, *, replaces: Replaces = no_file) -> None:
    """Write a file completely or not at all; OutputError when it cannot be written.

    Names of files that are not UTF-8 hold lone surrogates, which are written as in \\udcff.
    """
    write_bytes(final, text.encode(errors="backslashreplace"), replaces=replaces)


def write_bytes(final: Path, content: bytes, *, replaces: Replaces = no_file) -> None:
    """Write a file completely or not at all; OutputError when it cannot be written."""
    write_together({final: content}, replaces=replaces)


def write_together(contents: Mapping[Path, bytes], *, replaces: Replaces = no_file) -> None:
    """Write files of one folder, all or none, in this order.

    Raises OutputError when one cannot be written, or exists and `replaces` does not allow it.
    """
    check_files(contents, force=replaces is not no_file, replaces=replaces)
    finals = {path.absolute(): content for path, content in contents.items()}

    def replaceable(path: Path, final: Path) -> None:
        check_file(path, final, replaces)

    with _beside(next(iter(finals))) as folder:
        for final, content in finals.items():
            (folder / NEW / final.name).write_bytes(content)
        _publish(folder, finals, None if replaces is no_file else replaceable)


def make_readable(path: Path) -> None:
    """Give a file that a library made private the permissions of an ordinary new file."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _prefix(final: Path) -> str:
    """How the names of its temporary folders begin."""
    return f".{os.fsencode(final.name)[:_STEM].decode(errors='ignore')}.partial-"


@contextlib.contextmanager
def _beside(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`, with folders for new and old files; OutputError for errors of the disk."""
    with contextlib.ExitStack() as stack:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(locked_folder(final.parent, _prefix(final), _put_back))
            for name in (NEW, OLD):
                (folder / name).mkdir()
        except OSError as error:
            raise OutputError(
                f"cannot write to {final.parent}: {error.strerror}; choose another place"
            ) from None
        try:
            yield folder
        except OSError as error:
            ours = str(error.filename or "").startswith(str(folder))  # not a file that the block was reading
            if error.errno not in _NOT_WRITTEN and not ours:
                raise
            what_to_do = _NOT_WRITTEN.get(error.errno or 0, "choose another place")
            raise OutputError(f"{final} was not written: {error.strerror}; {what_to_do}") from error


def _publish(folder: Path, finals: Iterable[Path], check: Check | None) -> None:
    """Move new files and folders to their places: all of them, or on an error none."""
    places = {final: folder / NEW / final.name for final in finals}
    try:
        for final, new in places.items():
            if check is not None and os.path.lexists(final):
                _move_aside(final, folder / OLD / final.name, check)
            _place(new, final)
    except BaseException:  # an interrupt, too
        placed = [final for final, new in places.items() if not os.path.lexists(new)]
        for final in placed if len(placed) < len(places) else ():
            final.rename(places[final])
        raise


def _move_aside(final: Path, old: Path, check: Check) -> None:
    """Check what is there now, and again where nothing else can change it."""
    try:
        check(final, final)
        final.rename(old)
    except FileNotFoundError:  # another process took it
        return
    if not old.is_symlink():  # only the link is replaced, and a relative one leads elsewhere now
        check(old, final)


def _place(new: Path, final: Path) -> None:
    """Rename without replacing. OutputError if the name is taken.

    The rename of a folder fails where there is a file, or a folder with anything in it; that of a file would replace
    a file, a hard link does not.
    """
    try:
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if new.is_dir():
            new.rename(final)
        else:
            _place_file(new, final)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        raise OutputError(
            f"{final} appeared while this command ran; it was kept, and nothing was written. Choose another place "
            "with -o, or repeat"
        ) from None


def _place_file(new: Path, final: Path) -> None:
    try:
        os.link(new, final)
    except FileExistsError:
        raise
    except (
        OSError
    ):  # no hard links here, as on FAT and some network drives: claim the name, then replace the claim
        os.close(os.open(final, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        new.replace(final)
    else:
        new.unlink()


def _put_back(folder: Path) -> None:
    """Return what was moved aside to its place, or beside it if that is taken, unless its successor is there."""
    for old in [*(folder / OLD).iterdir()] if (folder / OLD).is_dir() else []:
        if not os.path.lexists(folder / NEW / old.name):
            continue
        final = folder.parent / old.name
        number = 0
        while os.path.lexists(final):
            number += 1
            final = folder.parent / f"{old.name}.old{number}"
        old.rename(final)
