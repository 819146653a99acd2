"""Reads arrays of an `.npz` file by rows: memory grows with the rows read, not with the file. Numpy only.

Nothing is unpickled: an array of objects is known by its header and is refused before its data is read.
"""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import ConfigError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_ZIP = b"PK\x03\x04"
# raised by zipfile and numpy for damaged, encrypted and foreign files
_UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


@dataclass(frozen=True)
class Array:
    """An array's header."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    in_rows: bool  # C order: rows follow one another

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class Npz:
    """An open `.npz` file: `arrays` by name, of which rows are read on request."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        names = file.namelist()
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(repeated))} is in it twice")
        if not names or not all(name.endswith(".npy") for name in names):
            raise ValueError("it holds other files than arrays")
        self.arrays = {name.removesuffix(".npy"): self._array(name.removesuffix(".npy")) for name in names}

    def rows(self, name: str, most: int) -> NDArray[Any]:
        """The first rows of an array, at most `most`."""
        array = self.arrays[name]
        shape = (min(most, array.shape[0]), *array.shape[1:])
        wanted = math.prod(shape) * array.dtype.itemsize
        with self._file.open(f"{name}.npy") as stream:
            _read_header(stream)
            data = stream.read(wanted)
            if len(data) < wanted or (shape == array.shape and stream.read(1)):
                raise ValueError(f"{name}: the size of its data does not fit its header")
        return np.frombuffer(data, dtype=array.dtype).reshape(shape)

    def _array(self, name: str) -> Array:
        with self._file.open(f"{name}.npy") as stream:
            shape, fortran, dtype = _read_header(stream)
        if not all(0 <= size < 2**63 for size in shape):
            raise ValueError(f"{name}: shape {shape}")
        return Array(name, shape, dtype, in_rows=not fortran or len(shape) < 2)


@contextmanager
def open_npz(path: Path, what: str) -> Iterator[Npz]:
    """Open a file; ConfigError, which starts with `what`, if it is absent, damaged or no `.npz`.

    Errors that are found while rows are read count, too.
    """
    if not path.exists():
        raise ConfigError(f"{what}: {path} does not exist")
    if not path.is_file():
        raise ConfigError(f"{what}: {path} is not a file, expected an .npz file of numpy.savez")
    try:
        with path.open("rb") as whole, zipfile.ZipFile(whole) as file:
            whole.seek(0)
            if whole.read(len(_ZIP)) != _ZIP:  # zipfile skips what is in front, numpy does not
                raise ValueError("it does not begin as a zip file")
            yield Npz(file)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{what}: {path} is not a complete .npz file of numpy.savez ({reason}); write it again"
        ) from None


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"array format {version}")
    try:
        return _HEADERS[version](stream)
    except Exception as error:  # numpy evaluates a literal: a damaged one raises what Python's parser raises
        raise ValueError("the header of an array cannot be read") from error
