"""`export` as a Python function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morvit_deploy.exporters.base import Exported, Request
from morvit_deploy.exporters.registry import find_target


def export(checkpoint: str | Path, out: str | Path, *, target: str = "onnx", **options: Any) -> Exported:
    """Export a checkpoint folder to a verified bundle at `out`; `options` are the fields of `Request`.

    Raises ConfigError, CheckpointError or OutputError on bad input, StructureError or ParityError when a check
    fails; then nothing is written.
    """
    return find_target(target).load_exporter().export(Request(Path(checkpoint), Path(out), **options))
