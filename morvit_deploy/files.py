"""Writes files and folders whole or not at all: a temporary sibling, then one rename."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from morvit_deploy.errors import ConfigError, OutputError
from morvit_deploy.strict_json import read_json

_PARTIAL = ".partial-"
_NOT_WRITTEN = {
    errno.ENOSPC: "free some space and repeat",
    errno.EDQUOT: "free some of your quota and repeat",
    errno.EFBIG: "the file system, or a limit of the shell (ulimit -f), allows no larger file",
    errno.EROFS: "choose a place that is not read-only",
    errno.EIO: "the disk failed; choose another place",
}


@contextmanager
def new_folder(final: Path, *, marker: str, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `final` when the block ends without an error.

    An existing `final` is refused; with `force` it is replaced if it is empty or holds `marker`, the JSON file whose
    `format` identifies our own output. Raises OutputError when the place cannot be written.
    """
    final = final.absolute()  # not resolve(): a link keeps its name
    if final.name in ("", ".."):
        raise OutputError(f"{final} has no name of its own; choose another place")
    check_free(final, marker=marker, force=force)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}{_PARTIAL}{os.getpid()}-", dir=final.parent))
    except OSError as error:
        raise OutputError(f"cannot write to {final.parent}: {error.strerror}; choose another place") from None
    try:
        yield partial
        _publish(partial, final)
    except OSError as error:
        if error.errno in _NOT_WRITTEN:
            what_to_do = _NOT_WRITTEN[error.errno]
            raise OutputError(f"{final} was not written: {error.strerror}; {what_to_do}") from error
        if str(error.filename or "").startswith(str(partial)):  # ours, not a file that the block was reading
            raise OutputError(f"{final} was not written: {error.strerror}; choose another place") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_files(files: Iterable[Path], *, force: bool) -> None:
    """OutputError for a file to write that is a folder, or that exists, unless `force`."""
    for path in files:
        if path.is_dir():
            raise OutputError(f"-o {path} is a folder, expected a file name")
        if path.exists() and not force:
            raise OutputError(f"{path} exists; pass --force to replace it, or choose another place with -o")


def check_free(final: Path, *, marker: str, force: bool) -> None:
    """Raise OutputError unless `final` is absent, or `force` may replace it."""
    if not os.path.lexists(final):
        return
    if not final.is_dir():
        raise OutputError(f"{final} exists and is not a folder; choose another place")
    if not force:
        raise OutputError(f"{final} exists; pass --force to replace it, or choose another place")
    if Path.cwd().is_relative_to(final.resolve()):
        raise OutputError(f"{final} is the current folder or holds it; it cannot be replaced from inside")
    if any(final.iterdir()) and not is_ours(final / marker):
        raise OutputError(
            f"--force replaces only what this tool wrote, and {final} has no {marker} of ours; "
            "remove it yourself or choose another place"
        )


def is_ours(marker: Path) -> bool:
    """Is it of one of our formats? Other programs write a config.json or manifest.json, too."""
    try:
        content = read_json(marker)
    except (OSError, ConfigError):
        return False
    return isinstance(content, dict) and str(content.get("format", "")).startswith("morvit")


def _publish(partial: Path, final: Path) -> None:
    partial.chmod(0o777 & ~_umask())  # mkdtemp made it private
    if not final.exists():
        partial.rename(final)
        return
    old = partial.with_name(partial.name + ".old")
    final.rename(old)
    try:
        partial.rename(final)
    except OSError:
        old.rename(final)
        raise
    if old.is_symlink():
        old.unlink()  # the folder behind it is not ours to remove
    else:
        shutil.rmtree(old, ignore_errors=True)


def make_readable(path: Path) -> None:
    """Give a file that a library made private the permissions of an ordinary new file."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sweep(final: Path) -> None:
    """Remove what killed runs left beside `final`."""
    for stale in final.parent.iterdir():
        if not stale.name.startswith(f".{final.name}{_PARTIAL}"):
            continue
        pid = stale.name.split(_PARTIAL)[1].split("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            if stale.name.endswith(".old") and not final.exists():
                stale.rename(final)  # killed between the two renames: the replaced folder is the only one
            else:
                shutil.rmtree(stale, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True


def write_text(final: Path, text: str) -> None:
    """Write a file whole or not at all; OutputError when it cannot be written."""
    write_bytes(final, text.encode())


def write_bytes(final: Path, content: bytes) -> None:
    """Write a file whole or not at all; OutputError when it cannot be written."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".partial-") as beside:
            partial = Path(beside) / "content"  # not a temporary file: those are private
            partial.write_bytes(content)
            partial.replace(final)
    except OSError as error:
        raise OutputError(f"cannot write {final}: {error.strerror}; choose another place") from None
