"""Where a checkpoint or a bundle is when the user does not say, and whether a file may be written."""

from __future__ import annotations

import os
from pathlib import Path

from morvit_deploy.errors import BundleError, ConfigError
from morvit_deploy.files import is_ours
from morvit_deploy.sources.tensors.names import check_exists


def checkpoint_path(given: Path | None) -> Path:
    """`given`, or the current folder when it holds a checkpoint; a bundle is an error."""
    path = given or Path()
    check_exists(path)
    if (path / "config.json").is_file():
        return path
    if is_ours(path / "manifest.json"):
        raise ConfigError(f"{path} is a bundle; give the checkpoint that it was made from")
    if given is None:
        raise ConfigError(
            "no checkpoint given (CHECKPOINT, for verify --checkpoint), and the current folder has no config.json"
        )
    return path  # its own loader reports what is missing


def bundle_folder(given: Path | None) -> Path:
    """`given`, or the newest bundle under build/."""
    if given is not None:
        if not os.path.exists(given):  # noqa: PTH110  # False for a name that is too long, too
            raise BundleError(f"{given} does not exist; give a folder that `morvit-deploy export` wrote")
        return given
    manifests = [*Path("build").glob("*/manifest.json"), *Path("build").glob("*/*/manifest.json")]
    hidden = [path for path in manifests if any(part.startswith(".") for part in path.parts)]  # being written
    whole = [path for path in manifests if path not in hidden and is_ours(path)]
    found = sorted(whole, key=lambda path: path.stat().st_mtime)
    if not found:
        raise BundleError("no BUNDLE given, and there is none under build/; run `morvit-deploy export` first")
    return found[-1].parent
