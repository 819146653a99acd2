"""Finds PNG files that end before their last row, which Pillow decodes to black. No torch."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIECE = 1 << 16  # bytes read or decompressed at a time, so that memory stays constant
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
# first column and row, and the steps between them, of each pass of an interlaced picture (PNG specification, 8.2)
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def missing_share(path: Path) -> float:
    """The share of a PNG file's decompressed rows that is not there: 0 for a complete one.

    Raises zlib.error or struct.error for a damaged file.
    """
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        expected = 0
        for kind, length in _chunks(file):
            if kind == b"IHDR":
                expected = _raw_bytes(file.read(length))
            elif kind == b"IDAT":
                file.seek(-8, 1)
                return 1 - _inflated(file, expected) / expected
            else:
                file.seek(length, 1)
            file.seek(4, 1)  # CRC
    return 1.0


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Type and length of each chunk; the caller moves on to the next one."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        yield kind, length


def _raw_bytes(header: bytes) -> int:
    """Bytes of the decompressed rows, each with the number of its filter."""
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * CHANNELS[color]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _inflated(file: BinaryIO, most: int) -> int:
    """Decompressed bytes of the IDAT chunks that start here, at most `most`."""
    stream, found = zlib.decompressobj(), 0
    for kind, length in _chunks(file):
        if kind != b"IDAT":
            break
        for piece in _pieces(file, length):
            data = piece
            while data and found < most and not stream.eof:
                found += len(stream.decompress(data, PIECE))
                data = stream.unconsumed_tail
        file.seek(4, 1)
    return min(found, most)


def _pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length and (piece := file.read(min(PIECE, length))):
        length -= len(piece)
        yield piece
