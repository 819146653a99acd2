"""Gather the page, onnxruntime-web and a bundle in one folder, which any web server can serve.

python examples/web/prepare.py build/my-model-onnx --pictures examples/digits-test -o build/web
python examples/web/serve.py build/web
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import morvit_deploy.exporters.targets  # noqa: F401  # manifests name a target
from morvit_deploy.bundle.listing import list_pictures
from morvit_deploy.bundle.manifest import MANIFEST, Manifest, open_manifest
from morvit_deploy.errors import BundleError, MorvitError
from morvit_deploy.files import Place, check_free, new_folder, own_list
from morvit_deploy.measuring.browser.runtime import Runtime, find_runtime

PAGE = Path(__file__).parent
PARTS = ("index.html", "style.css", "boot.js", "sw.js")
MODULES = ("main.js", "camera.js", "depth.js", "files.js", "formats.js", "picture.js", "results.js")
LATER = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
MARKER, SITE = "site.json", "site.js"
SAMPLES = 8
EMBEDDED_MOST = 64 << 20  # bytes of a bundle that a page opened as a file can hold; larger ones need a server
SHOWN_WHOLE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")  # that browsers decode


def main() -> int:
    """Write the folder; the exit status."""
    args = parse_arguments()
    place: Place = {
        "marker": MARKER,
        "lists": own_list,
        "force": args.force,
        "inputs": (args.bundle, args.pictures),
    }
    try:
        check_free(args.out, **place)
        manifest = checked_manifest(args.bundle)
        runtime = find_runtime(args.runtime, "wasm", say)
        with new_folder(args.out, **place) as folder:
            contents = {
                **page_files(runtime),
                **bundle_files(args.bundle, manifest),
                **samples(args.pictures),
            }
            write_site(folder, contents, runtime)
    except MorvitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"wrote {args.out} ({size / 1e6:.0f} MB). To open it: python {PAGE / 'serve.py'} {args.out}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path, help="bundle of target onnx")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("build/web"), help="folder to write (build/web)"
    )
    parser.add_argument(
        "--pictures", type=Path, help=f"folder of sample pictures; the first {SAMPLES} are used"
    )
    parser.add_argument(
        "--runtime", type=Path, help="folder of the npm package onnxruntime-web (default: download)"
    )
    parser.add_argument("--force", action="store_true", help="replace a folder that this script wrote")
    return parser.parse_args()


def say(text: str) -> None:
    """Print what takes long."""
    print(f"{text} ...", file=sys.stderr)


def checked_manifest(bundle: Path) -> Manifest:
    """The bundle's manifest; BundleError for another target, or a damaged bundle."""
    manifest = open_manifest(bundle)
    if manifest.target != "onnx":
        raise BundleError(
            f"{bundle} has target {manifest.target!r}; browsers run 'onnx': export the checkpoint with --target onnx"
        )
    return manifest


def page_files(runtime: Runtime) -> dict[str, bytes]:
    """The page's own files and those of onnxruntime-web, by path in the folder."""
    code = resources.files("morvit_deploy.bundle").joinpath("web/bundle.js").read_bytes()
    own = {name: (PAGE / name).read_bytes() for name in (*PARTS, *MODULES)}
    return {
        **own,
        "bundle.js": code,
        **{f"ort/{name}": path.read_bytes() for name, path in runtime.files().items()},
    }


def bundle_files(bundle: Path, manifest: Manifest) -> dict[str, bytes]:
    """The bundle's files, by path in the folder."""
    names = (MANIFEST, *(file.path for file in manifest.files))
    return {f"bundle/{name}": (bundle / name).read_bytes() for name in names}


def samples(pictures: Path | None) -> dict[str, bytes]:
    """Sample pictures, by path in the folder."""
    listed = list_pictures(pictures).files if pictures else ()
    chosen = [path for path in listed if path.suffix.lower() in SHOWN_WHOLE][:SAMPLES]
    return {f"samples/{path.name}": path.read_bytes() for path in chosen}


def write_site(folder: Path, contents: Mapping[str, bytes], runtime: Runtime) -> None:
    """Write all files, what the page must know of them, and copies for a page that is opened as a file."""
    bundle_bytes = sum(len(content) for path, content in contents.items() if path.startswith("bundle/"))
    embedded = bundle_bytes <= EMBEDDED_MOST
    site = described(contents, runtime, embedded=embedded)
    copies = embedded_copies(contents) if embedded else {}
    written = {**contents, SITE: f"const SITE = {json.dumps(site)};\n".encode(), **copies}
    for path, content in written.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / MARKER).write_text(json.dumps({"format": "morvit-web/1", "files": [*written, MARKER]}))


def described(contents: Mapping[str, bytes], runtime: Runtime, *, embedded: bool) -> dict[str, Any]:
    """`SITE` of boot.js and sw.js."""
    backends = ["wasm", *(["webgpu"] if f"ort/{LATER[0]}" in contents else [])]
    return {
        "bundle": "bundle",
        "runtime": runtime.version,
        "backends": backends,
        "modules": ["bundle.js", *MODULES],
        "samples": [path for path in contents if path.startswith("samples/")],
        "embedded": embedded,
        "files": [
            *(path for path in contents if Path(path).name not in (*LATER, "sw.js", "index.html")),
            SITE,
        ],
        "version": hash_of(contents),
    }


def hash_of(contents: Mapping[str, bytes]) -> str:
    """Short hash of all files: another one makes browsers load them again."""
    found = hashlib.sha256()
    for path, content in sorted(contents.items()):
        found.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
    return found.hexdigest()[:16]


def embedded_copies(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files that scripts load, as classic scripts: modules and fetch are blocked in a page opened as a file."""
    named: Iterable[tuple[str, bytes]] = (
        (path, content) for path, content in contents.items() if path not in PARTS
    )
    return {f"embedded/{path}.js": embedded_copy(path, content) for path, content in named}


def embedded_copy(path: str, content: bytes) -> bytes:
    """A call of boot.js's `embedded` with the path and the content in gzip and base64."""
    packed = base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode("ascii")
    return f"embedded({json.dumps(path)}, {json.dumps(packed)});\n".encode()


if __name__ == "__main__":
    sys.exit(main())
