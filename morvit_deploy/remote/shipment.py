"""The files of a measurement, as a tar stream."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

Shipment = Mapping[str, "Path | bytes"]  # place below the agent's folder to a file here, or to its content


def size_of(shipment: Shipment) -> int:
    """Bytes of all files."""
    return sum(len(it) if isinstance(it, bytes) else it.stat().st_size for it in shipment.values())


def write_to(shipment: Shipment, stream: IO[bytes], sent: Callable[[int], None]) -> None:
    """Write the stream; calls `sent` with the size of each file written. OSError when the other end closes."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, it in shipment.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(it) if isinstance(it, bytes) else it.stat().st_size
            with io.BytesIO(it) if isinstance(it, bytes) else it.open("rb") as source:
                archive.addfile(entry, source)
            sent(entry.size)
