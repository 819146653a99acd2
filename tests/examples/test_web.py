"""The example page in headless Chromium: what Python returns, over HTTP, without a network, and opened as a file."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from chromium import Tab, browser, find_chromium
from node import web_runtime
from PIL import Image
from places import EXAMPLES
from tiny_models import make_config

from morvit_deploy import open_bundle
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.bundle.pixels import read_image

WEB = EXAMPLES / "web"
ANSWERED = "document.body?.dataset.answered && document.getElementById('status').textContent === {name}"
PROBLEM = "document.getElementById('problem').hidden ? '' : document.getElementById('problem').textContent"
JPEG_LEVELS = 3  # of 255: decoders round the inverse transform and the colors differently
SHOWN = 1e-3  # four digits, and float32
PERCENT = 0.06  # half of the last digit shown, and float32


@dataclass(frozen=True)
class Site:
    """A prepared folder, the bundle in it, and its first sample picture."""

    folder: Path
    bundle: Path
    picture: Path


@pytest.fixture(scope="module")
def site(tiny_bundle: Path, image_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Site:
    return prepared(tiny_bundle, image_files, tmp_path_factory.mktemp("web") / "site")


def prepared(bundle: Path, image_files: list[Path], folder: Path) -> Site:
    """The page with a bundle and samples; skips without a browser."""
    if find_chromium() is None:
        pytest.skip("no browser of the Chromium family is installed")
    runtime = web_runtime()
    options = ["--pictures", str(image_files[0].parent), "--runtime", str(runtime), "-o", str(folder)]
    prepare = [sys.executable, str(WEB / "prepare.py"), str(bundle), *options]
    done = subprocess.run(prepare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Site(folder, bundle, image_files[0])


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[subprocess.Popen[str]]:
    with serving(site) as process:
        yield process


@contextmanager
def serving(site: Site) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(WEB / "serve.py"), str(site.folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


@pytest.fixture(scope="module")
def url(server: subprocess.Popen[str]) -> str:
    return url_of(server)


def url_of(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline().split()[0]


@pytest.fixture(scope="module")
def tab(site: Site, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """The page after its first answer."""
    profile = tmp_path_factory.mktemp("profile") / "data"
    with browser(profile, "--use-fake-device-for-media-stream") as tab:
        tab.goto(url)
        wait_for_answer(tab, site.picture.name)
        yield tab


def wait_for_answer(tab: Tab, name: str) -> None:
    tab.wait_for(ANSWERED.format(name=json.dumps(name)))


def wait_for_problem(tab: Tab, part: str) -> None:
    tab.wait_for(f"({PROBLEM}).toLowerCase().includes({json.dumps(part.lower())})")


def text_of(tab: Tab, selector: str) -> str:
    found: str = tab.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


def assert_shows_python(tab: Tab, site: Site) -> None:
    """The class, its probability and the depths that Python returns for the first sample."""
    with open_bundle(site.bundle) as session:
        outputs = session.run(session.read(site.picture)[None])
        (best,) = session.guesses(outputs["logits"][0], count=1)
    assert text_of(tab, "#label") == best.label
    shown = float(text_of(tab, "#bars .best b").removesuffix(" %"))
    assert abs(shown - 100 * best.probability) <= PERCENT
    counts = np.bincount(outputs["depth"][0], minlength=session.manifest.config.num_steps + 1)
    legend = tab.evaluate("document.getElementById('legend').getAttribute('aria-label')")
    for depth, count in enumerate(counts):
        assert f"{depth} steps: {count} patches" in legend or (depth == 0 and count == 0)


def test_first_sample_is_answered_as_in_python(tab: Tab, site: Site) -> None:
    assert_shows_python(tab, site)
    assert "Latency" in text_of(tab, "#facts")
    assert tab.evaluate("crossOriginIsolated")
    assert tab.complaints == []


@pytest.mark.parametrize("output", ["features", "tokens"])
def test_an_array_is_shown_with_its_norm(
    output: str, exported: Callable[..., Path], image_files: list[Path], tmp_path: Path
) -> None:
    bundle = exported(make_config(), output=output)
    site = prepared(bundle, image_files, tmp_path / "site")
    with open_bundle(bundle) as session:
        (answer,) = session.answer(session.read(site.picture)[None])
    with serving(site) as server, browser(tmp_path / "profile") as tab:
        tab.goto(url_of(server))
        wait_for_answer(tab, site.picture.name)
        label, norm = text_of(tab, "#label").rsplit(" ", 1)
        assert label == f"{output}: {' × '.join(map(str, answer.shape))} numbers, norm"
        assert abs(float(norm) / np.linalg.norm(answer) - 1) < SHOWN
        assert tab.complaints == []


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_fits_its_width(tab: Tab, tmp_path: Path, width: int, dark: bool) -> None:
    tab.screenshot(tmp_path / "page.png", width=width, dark=dark)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    with Image.open(tmp_path / "page.png") as shot:
        brightness = shot.convert("L").getpixel((2, 2))
    assert isinstance(brightness, int) and (brightness < 60) == dark


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """Pictures of many kinds, by file name."""
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 4), dtype=np.uint8), "RGBA")
    rgba = coarse.resize((70, 93), Image.Resampling.BICUBIC)
    rgb = rgba.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    others = [rgb.rotate(angle) for angle in (90, 180)]
    return {
        "opaque.png": encoded(rgb, "PNG"),
        "transparent.png": encoded(rgba, "PNG"),
        "gray.png": encoded(rgb.convert("L"), "PNG"),
        "palette.png": encoded(rgb.quantize(16), "PNG"),
        "gamma.png": with_gamma(encoded(rgb, "PNG")),
        "turned.png": encoded(rgb, "PNG", exif=exif),
        "picture.webp": encoded(rgb, "WEBP", lossless=True),
        "picture.bmp": encoded(rgb, "BMP"),
        "animated.gif": encoded(rgb, "GIF", save_all=True, append_images=others),
        "animated.png": encoded(rgb, "PNG", save_all=True, append_images=others),
        "picture.jpg": encoded(rgb, "JPEG", quality=95),
        "turned.jpg": encoded(rgb, "JPEG", quality=95, exif=exif),
    }


def with_gamma(png: bytes) -> bytes:
    """Insert a gAMA chunk of 1.0, which Pillow ignores."""
    import zlib

    body = b"gAMA" + (100_000).to_bytes(4, "big")
    chunk = (4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize("exif", [False, True], ids=["as stored", "turned"])
@pytest.mark.parametrize("name", pictures())
def test_pictures_are_read_as_in_python(tab: Tab, site: Site, tmp_path: Path, name: str, exif: bool) -> None:
    content = pictures()[name]
    (tmp_path / name).write_bytes(content)
    manifest = open_manifest(site.bundle)
    expected = read_image(tmp_path / name, manifest.preprocess, manifest.config.image_size, exif=exif)
    found = tab.evaluate(f"""(async () => {{
        const {{ decode }} = await import("app/picture.js");
        const {{ Bundle }} = await import("app/bundle.js");
        const manifest = await (await fetch("bundle/manifest.json")).json();
        const bytes = Uint8Array.from(atob("{base64.b64encode(content).decode()}"), (c) => c.charCodeAt(0));
        const picture = await decode(new File([bytes], "{name}"), {{ exif: {json.dumps(exif)} }});
        const input = new Bundle(manifest, {{}}, []).preprocess(picture.pixels, picture.width, picture.height);
        return {{ pixels: Array.from(input), notes: picture.notes }};
    }})()""")
    error = np.abs(np.array(found["pixels"]) - expected.ravel().astype(int)).max()
    assert error <= (JPEG_LEVELS if name.endswith(".jpg") else 0)
    notes = " ".join(found["notes"])
    assert ("EXIF orientation is not applied" in notes) == (name.startswith("turned") and not exif)
    assert ("first frame" in notes) == name.startswith("animated")


BAD: dict[str, tuple[bytes, str]] = {
    "notes.png": (b"not a picture at all", "notes.png is not an image that can be read here"),
    "empty.png": (b"", "it is empty (0 bytes)"),
    "cut.png": (encoded(Image.new("RGB", (64, 64), "red"), "PNG")[:60], "cut.png cannot be decoded"),
    "small.png": (encoded(Image.new("RGB", (1, 1)), "PNG"), "1×1 pixels and is smaller than the model's"),
    "photo.jpg": (b"\x00\x00\x00\x18ftypheic" + bytes(20), "it is HEIC or a video: convert it"),
    "scan.tif": (encoded(Image.new("RGB", (64, 64)), "TIFF"), "it is TIFF: convert it to PNG or JPEG"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_refused(tab: Tab, tmp_path: Path, name: str) -> None:
    content, expected = BAD[name]
    (tmp_path / name).write_bytes(content)
    tab.give_files("#file", tmp_path / name)
    wait_for_problem(tab, expected)
    assert tab.complaints == []


def test_small_pictures_can_be_enlarged(tab: Tab, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    tab.evaluate("document.getElementById('upscale').checked = true")
    tab.give_files("#file", tmp_path / "dot.png")
    wait_for_answer(tab, "dot.png")
    tab.evaluate("document.getElementById('upscale').checked = false")
    assert tab.evaluate(PROBLEM) == ""


def allow_camera(tab: Tab, setting: str) -> None:
    tab.call("Browser.setPermission", permission={"name": "camera"}, setting=setting)
    tab.evaluate("document.getElementById('camera').click()")


def test_camera_is_shown_or_its_refusal_explained(tab: Tab) -> None:
    allow_camera(tab, "denied")
    wait_for_problem(tab, "the camera was refused; allow it in the browser's site settings")
    allow_camera(tab, "granted")
    tab.wait_for("document.getElementById('canvas').getAttribute('aria-label').startsWith('Camera')")
    assert tab.evaluate(PROBLEM) == ""
    tab.evaluate("document.getElementById('camera').click()")
    assert text_of(tab, "#camera") == "Camera"
    assert tab.complaints == []


def drop(tab: Tab, folder: Path) -> None:
    """Choose a bundle's folder."""
    tab.give_files("#folder", folder)


def test_other_bundles_are_opened_or_refused(tab: Tab, site: Site, tmp_path: Path) -> None:
    drop(tab, site.picture.parent)
    wait_for_problem(tab, "no manifest.json in what was given")
    manifest = json.loads((site.bundle / "manifest.json").read_bytes())
    other = Path(shutil.copytree(site.bundle, tmp_path / "other"))
    (other / "manifest.json").write_text(json.dumps({**manifest, "target": "trt"}))
    drop(tab, other)
    wait_for_problem(tab, 'got a bundle of target "trt"')
    (other / "manifest.json").write_text(json.dumps(manifest))
    weights = (other / "weights.bin").read_bytes()
    (other / "weights.bin").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    drop(tab, other)
    wait_for_problem(tab, "content differs from the manifest's sha256")
    drop(tab, site.bundle)
    tab.wait_for("document.getElementById('about').textContent !== ''")
    tab.give_files("#file", site.picture)
    wait_for_answer(tab, site.picture.name)
    assert_shows_python(tab, site)
    assert tab.complaints == []


def test_opens_as_a_file(site: Site, tmp_path: Path) -> None:
    with browser(tmp_path / "data") as tab:
        tab.goto((site.folder / "index.html").as_uri())
        wait_for_answer(tab, site.picture.name)
        assert_shows_python(tab, site)
        assert tab.complaints == []


def test_opens_without_a_network(tab: Tab, site: Site, server: subprocess.Popen[str], url: str) -> None:
    tab.wait_for("navigator.serviceWorker.ready.then((one) => one.active.state === 'activated')")
    server.terminate()
    server.wait()
    tab.goto(url)
    tab.wait_for("performance.now() < 60000 && document.readyState === 'complete'")
    wait_for_answer(tab, site.picture.name)
    assert_shows_python(tab, site)
    assert tab.evaluate("crossOriginIsolated")
