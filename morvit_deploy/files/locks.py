"""Temporary folders that are locked while their process lives, so that others know which ones a killed run left.

A lock ends with its process, however that ends, and is the same for every container and, with NFS's lock service, for
every machine; a process id is not.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from morvit_deploy.errors import OutputError

LOCK = "lock"  # the locked file in a temporary folder
_TRIES = 10

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        """OSError if another process holds the lock, or the file system has no locks."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def keep_nothing(folder: Path) -> None:
    """For a temporary folder whose whole content is to be removed."""


@contextlib.contextmanager
def locked_folder(parent: Path, prefix: str, rescue: Callable[[Path], None] = keep_nothing) -> Iterator[Path]:
    """Yield a new folder in `parent` whose name begins with `prefix`; it is removed at the end.

    Removes the folders of that prefix first whose processes have ended. Before a folder is removed, `rescue` takes
    from it what must not be lost; if that fails with an OSError, the folder stays. Raises OSError.
    """
    sweep(parent, prefix, rescue)
    folder, lock = _make(parent, prefix)
    try:
        yield folder
    finally:
        try:
            _remove(folder, lock, rescue)
        except KeyboardInterrupt:  # Ctrl-C while cleaning up
            _remove(folder, lock, rescue)
            raise


@contextlib.contextmanager
def temporary(purpose: str) -> Iterator[Path]:
    """Yield a folder `morvit-PURPOSE-…` among the system's temporary files; OutputError where there is no place."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(locked_folder(Path(tempfile.gettempdir()), f"morvit-{purpose}-"))
        except OSError as error:
            raise OutputError(
                f"cannot write temporary files: {error.strerror or error}; free some space, or name another place "
                "with the environment variable TMPDIR"
            ) from None
        yield folder


def sweep(parent: Path, prefix: str, rescue: Callable[[Path], None] = keep_nothing) -> None:
    """Remove the folders of that prefix in `parent` whose processes have ended."""
    for folder in [path for path in parent.iterdir() if path.name.startswith(prefix)]:
        try:
            file = (folder / LOCK).open("r+b")
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                folder.rmdir()  # its process was killed before it made the lock
            continue
        except OSError:  # another user's, or not a folder
            continue
        with contextlib.suppress(OSError), file:
            _lock(file)
            _remove(folder, file, rescue)


def _make(parent: Path, prefix: str) -> tuple[Path, BinaryIO]:
    """A new folder and its locked file; a sweep may take a folder in the instant before it is locked."""
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = (folder / LOCK).open("x+b")
            with contextlib.suppress(OSError):  # without locks, nothing is ever swept
                _lock(lock)
            if (folder / LOCK).exists():
                return folder, lock
            lock.close()
        except FileNotFoundError:
            continue
        except BaseException:  # an interrupt, too
            shutil.rmtree(folder, ignore_errors=True)
            raise
    raise OSError(f"{parent}: temporary folders vanish as soon as they are made")


def _remove(folder: Path, lock: BinaryIO, rescue: Callable[[Path], None]) -> None:
    try:
        rescue(folder)
    except OSError:
        return
    finally:
        lock.close()  # before the removal: Windows keeps files that are open
    shutil.rmtree(folder, ignore_errors=True)
