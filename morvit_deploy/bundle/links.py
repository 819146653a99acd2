"""Bundles whose files are links, as in the cache of the Hugging Face hub. No torch."""

from __future__ import annotations

import atexit
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from morvit_deploy.bundle.manifest import MANIFEST, Manifest, open_manifest
from morvit_deploy.files import temporary


def open_linked(folder: str | Path) -> tuple[Path, Manifest]:
    """Check a bundle; returns the folder to read it from, and its manifest. BundleError as of `open_manifest`.

    Runtimes refuse weights behind a link. Where files are links, the folder is a temporary one with the files
    themselves, as hard links or copies; it is removed when this process ends.
    """
    folder = Path(folder)
    manifest = open_manifest(folder)
    names = [MANIFEST, *(file.path for file in manifest.files)]
    real = Path(os.path.realpath(folder))
    if all(Path(os.path.realpath(folder / name)) == real / name for name in names):
        return folder, manifest
    until_exit = ExitStack()
    atexit.register(until_exit.close)
    own = until_exit.enter_context(temporary("bundle")) / folder.resolve().name
    for name in names:
        _take(folder / name, own / name)
    return own, open_manifest(own)


def _take(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    real = os.path.realpath(source)
    try:
        os.link(real, place)
    except OSError:  # another file system
        shutil.copyfile(real, place)
