"""onnxruntime-web, the runtime of a browser: found in a folder, or downloaded from npm once. No torch."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morvit_deploy.errors import OutputError, TargetError
from morvit_deploy.files import new_folder

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# `npm view onnxruntime-web@VERSION dist.integrity`: the download is this file or is refused
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
REGISTRY = "https://registry.npmjs.org"
REGISTRY_VARIABLES = ("npm_config_registry", "NPM_CONFIG_REGISTRY")  # as npm reads them
FOLDER_VARIABLE = "MORVIT_ORT_WEB"
MODULES = {"wasm": "ort.wasm.min.mjs", "webgpu": "ort.webgpu.min.mjs"}  # backend to what the page imports
FILES = (
    *MODULES.values(),
    *("ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    *("ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),  # of webgpu
)
MOST_BYTES = 128 << 20  # of the archive and of each file
TIMEOUT_S = 60
INSTALL = f"npm install --prefix DIR {PACKAGE}@{VERSION}"
MANIFEST = "package.json"


@dataclass(frozen=True)
class Runtime:
    """A folder of the npm package, and the version that its package.json has."""

    folder: Path
    version: str

    def files(self) -> dict[str, Path]:
        """Name to path of what the page may load; `webgpu` files may be missing in older versions."""
        paths = {name: self.folder / "dist" / name for name in FILES}
        return {name: path for name, path in paths.items() if path.is_file()}


def find_runtime(folder: Path | None, backend: str, tell: Callable[[str], None]) -> Runtime:
    """The runtime of `folder`, of $MORVIT_ORT_WEB, or of the user's cache, into which it is downloaded if missing.

    Raises TargetError when the folder has none, or when it cannot be downloaded.
    """
    named = folder or (Path(found) if (found := os.environ.get(FOLDER_VARIABLE)) else None)
    if named is not None:
        return _checked(_given(named), backend)
    place = cache_folder() / f"{PACKAGE}-{VERSION}"
    if not (place / MANIFEST).is_file():
        tell(f"downloading {PACKAGE} {VERSION} from npm, once")
        _install(download(), place)
    return _checked(place, backend)


def cache_folder() -> Path:
    """This program's folder among the user's caches."""
    if sys.platform == "win32":
        start = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        start = Path.home() / "Library" / "Caches"
    else:
        start = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return start / "morvit-deploy"


def download() -> bytes:
    """The archive of the pinned version; TargetError if it cannot be had or is another file."""
    registry = next((os.environ[name] for name in REGISTRY_VARIABLES if os.environ.get(name)), REGISTRY)
    url = f"{registry.rstrip('/')}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
            archive: bytes = reply.read(MOST_BYTES)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise TargetError(
            f"cannot download {url}: {reason}. Where there is a network, run `{INSTALL}`, and set "
            f"{FOLDER_VARIABLE}=DIR"
        ) from None
    check_integrity(archive, url)
    return archive


def check_integrity(archive: bytes, url: str) -> None:
    """TargetError unless the bytes have npm's pinned hash."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != INTEGRITY:
        raise TargetError(
            f"{url} sent another file than {PACKAGE} {VERSION}: its hash is {found}, expected {INTEGRITY}; nothing "
            f"was kept. Check the proxy or the registry, or set {FOLDER_VARIABLE} to a folder of the package"
        )


def _install(archive: bytes, place: Path) -> None:
    """Write the needed files of the archive, whole or not at all; another process may have been faster."""
    try:
        with new_folder(place, marker=MANIFEST) as folder, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            (folder / "dist").mkdir()
            for name in (MANIFEST, *(f"dist/{file}" for file in FILES)):
                member = tar.extractfile(f"package/{name}")
                assert member is not None, "its hash is the known one, and this file is in it"
                (folder / name).write_bytes(member.read(MOST_BYTES))
    except OutputError:
        if not (place / MANIFEST).is_file():
            raise


def _given(folder: Path) -> Path:
    """The package's folder: what was named, or where npm installs it below that."""
    inside = folder / "node_modules" / PACKAGE
    return inside if inside.is_dir() else folder


def _checked(folder: Path, backend: str) -> Runtime:
    try:
        about: Any = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        about = {}
    if not isinstance(about, dict) or about.get("name", "") != PACKAGE:
        raise TargetError(
            f"{folder} is not a folder of the npm package {PACKAGE} (its {MANIFEST} does not say so); make one with "
            f"`{INSTALL}` and set {FOLDER_VARIABLE}=DIR"
        )
    runtime = Runtime(folder, str(about.get("version")))
    if MODULES[backend] not in runtime.files():
        raise TargetError(
            f"{folder} has no dist/{MODULES[backend]}, which backend {backend} requires; install another version "
            f"with `{INSTALL}`"
        )
    return runtime
