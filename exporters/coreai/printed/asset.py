"""Opens a saved asset, after checks: Core AI's reader aborts the process on a damaged program."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from morvit_deploy.errors import BundleError

PROGRAM, DIGEST, METADATA = "main.mlirb", "main.hash", "metadata.json"  # files of an asset
MAGIC = b"ML\xefR"  # MLIR bytecode


def open_asset(asset: Path) -> Any:
    """Core AI's own object; BundleError for an asset that is not as it was saved."""
    if problem := asset_problem(asset):
        raise BundleError(f"Core AI cannot read {asset}: {problem}; export it again")
    from coreai.authoring import AIModelAsset

    try:
        return AIModelAsset.load(str(asset))
    except RuntimeError as error:
        raise BundleError(f"Core AI cannot read {asset}: {error}; export it again") from error


def asset_problem(asset: Path) -> str | None:
    """What is missing or damaged; an asset stores the sha256 of its program."""
    for name in (PROGRAM, DIGEST, METADATA):
        if not (asset / name).is_file():
            return f"{name} is missing"
    program = (asset / PROGRAM).read_bytes()
    if not program.startswith(MAGIC):
        return f"{PROGRAM} is no program"
    if hashlib.sha256(program).digest() != (asset / DIGEST).read_bytes():
        return f"{PROGRAM} was changed: its sha256 is not that in {DIGEST}"
    return None
