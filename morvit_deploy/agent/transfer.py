"""Receives the files of a measurement and sends results, as tar streams."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from morvit_deploy.agent.core.faults import AgentError, Lacking


def receive(folder: Path, stream: BinaryIO) -> int:
    """Write every regular file of the stream below `folder`; returns the bytes. Lacking when the disk is full."""
    try:
        return _extract(folder, stream)
    except (tarfile.TarError, EOFError) as error:
        raise AgentError(f"the files of the measurement were cut off in transfer: {error}") from None


def _extract(folder: Path, stream: BinaryIO) -> int:
    total = 0
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            source = archive.extractfile(member) if member.isfile() else None
            if source is None or member.name.startswith("/") or ".." in parts:
                raise AgentError(
                    f"got {member.name!r} in the files sent, expected plain files inside the folder"
                )
            place = folder.joinpath(*parts)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            except OSError as error:
                free = shutil.disk_usage(str(folder)).free
                raise Lacking(
                    f"the device cannot hold the files of the measurement in {folder.parent}: {error.strerror}, "
                    f"{free / 2**20:.1f} MiB free at {member.name} of {member.size / 2**20:.1f} MiB; free some "
                    "space, or choose another place with --remote-dir"
                ) from None
            total += os.path.getsize(str(place))  # noqa: PTH202
    return total


def send(folder: Path, names: Sequence[str], stream: BinaryIO) -> None:
    """Write the named files of a folder to a tar stream."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.add(str(folder / name), arcname=name, recursive=False)
