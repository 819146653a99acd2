"""A bundle as it lies on a device, and the folder that must be empty afterwards."""

from __future__ import annotations

import io
import time
from pathlib import Path

from morvit_deploy.agent.transfer import receive
from morvit_deploy.measuring.board.shipping import pack
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.remote.shipment import write_to


def gone(folder: Path, within_s: float = 10.0) -> bool:
    """Is the folder empty, soon?"""
    end = time.monotonic() + within_s
    while any(folder.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(folder.iterdir())


def unpacked(subject: Subject, folder: Path) -> Path:
    stream = io.BytesIO()
    write_to(pack(subject, "tiny", "0"), stream, lambda size: None)  # type: ignore[arg-type]
    stream.seek(0)
    receive(folder, stream)
    return folder / "0"
