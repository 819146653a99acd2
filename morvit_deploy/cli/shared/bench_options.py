"""Options of `bench` in groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from morvit_deploy.cli.shared.derived import Group
from morvit_deploy.cli.shared.groups import OUTPUT, Exif, Force, Json, Threads, Upscale
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help

Backend = Literal["wasm", "webgpu"]  # as measuring.browser.options has it, which is too heavy for `--help`
SEVERAL = "Several devices"
EARLIER, MAX_SLOWER = "Slower than an earlier run?", "5%"


@dataclass(frozen=True)
class Fleet(Group):
    """Where several devices are listed, and whether they are measured at once."""

    device_file: Annotated[
        Path | None,
        Help(
            "TOML file with a [[device]] table for each: name, kind (as --device) and the options of its kind. Exit "
            "status 1 if a device drops out, after the others were measured.",
            "FILE",
            panel=SEVERAL,
        ),
    ] = None
    at_once: Annotated[
        bool,
        Help(
            "For --device-file: devices on other machines at the same time; this machine is measured alone.",
            panel=SEVERAL,
        ),
    ] = False


@dataclass(frozen=True)
class Measured(Fleet):
    """What is measured, and with which inputs."""

    panel = "What to measure"
    against: Annotated[
        tuple[Path, ...], Help("Another bundle to compare with, measured in turn; may be repeated.", "BUNDLE")
    ] = ()
    images: Annotated[
        Path | None,
        Help(
            "Folder of images to feed (default: synthetic pictures). Where a bucket is chosen for each image, "
            "at most 256 are used for the mix and 64 of them are timed.",
            "DIR",
        ),
    ] = None
    upscale: Upscale = False
    exif: Exif = False
    batch: Annotated[
        int | None, Help("Images per run, for a bundle of dynamic batch (default: 1).", least=1)
    ] = None
    profile: Annotated[
        bool,
        Help(
            "For cpu: also report where the time goes, by step of the model, and what bounds each step: memory, "
            "products or small operators."
        ),
    ] = False
    tf32: Annotated[
        bool, Help("For cuda: let ONNX Runtime round the products of fp32 bundles to TF32 (default: off).")
    ] = False


@dataclass(frozen=True)
class Timing(Group):
    """How long is measured."""

    panel = "How long"
    runs: Annotated[int | None, Help("Runs per block (default: half a second's worth).", least=10)] = None
    blocks: Annotated[
        int | None, Help("Blocks per bundle, taken in turn (default: 10; iphone: 3).", least=1)
    ] = None
    warmup: Annotated[
        int | None, Help("Runs before each block that are not counted (default: 3; iphone: 1).", least=0)
    ] = None
    starts: Annotated[
        int | None,
        Help("New processes for cold start and load; cpu only, not with --verdict (default: 5).", least=1),
    ] = None
    threads: Threads = None


@dataclass(frozen=True)
class Verdict(Group):
    """Is adaptive routing faster on this machine?"""

    panel = "Does adaptive routing pay?"
    verdict: Annotated[
        bool,
        Help("Measure whether the plan of BUNDLE pays, against top-k and dense exports of --checkpoint."),
    ] = False
    checkpoint: Annotated[
        Path | None, Help("For --verdict: the checkpoint that BUNDLE was made from.", "PATH")
    ] = None
    batches: Annotated[str | None, Help("For --verdict: batch sizes (default: 1,8,32).", "N,N,…")] = None
    topk_scale: Annotated[
        float | None,
        Help(
            "For --verdict: factor of the trained capacities for top-k (default: 1); give the one at which top-k is "
            "as accurate as the plan.",
            "FACTOR",
        ),
    ] = None


@dataclass(frozen=True)
class Apple(Group):
    """On a Mac, or an iPhone connected to it."""

    panel = "Mac and iPhone"
    compute_units: Annotated[
        tuple[str, ...],
        Help(
            "all, cpu_ne, cpu_gpu or cpu; may be repeated (default: compare, all of them in turn).", "UNITS"
        ),
    ] = ()
    phone: Annotated[
        str | None, Help("For iphone: its name or UDID, where several are connected.", "NAME")
    ] = None
    team: Annotated[
        str | None, Help("For iphone: Apple developer team that signs the runner app.", "TEAM")
    ] = None
    emit_project: Annotated[
        Path | None,
        Help(
            "Measure nothing: write a folder whose bench.py measures the bundle on a Mac without this package.",
            "DIR",
        ),
    ] = None


@dataclass(frozen=True)
class Browsing(Group):
    """In a browser, here or on a phone."""

    panel = "A browser"
    browser: Annotated[
        str | None,
        Help(
            "Start this browser without a window: chromium, chrome, edge, or a path (default: open the printed URL "
            "in any browser).",
            "PROGRAM",
        ),
    ] = None
    listen: Annotated[
        bool, Help("Serve the page on the local network, for a phone; the URL is also shown as a QR code.")
    ] = False
    port: Annotated[int | None, Help("Port of the page (default: a free one).", least=1, most=65535)] = None
    backend: Annotated[Backend | None, Help("What runs the graph (default: wasm).")] = None
    certificate: Annotated[
        Path | None,
        Help(
            "PEM file with a certificate and its key: serve over https://, which threads and WebGPU require on "
            "another device.",
            "FILE",
        ),
    ] = None
    web_runtime: Annotated[
        Path | None,
        Help("Folder of the npm package onnxruntime-web (default: downloaded once into your cache).", "DIR"),
    ] = None

    @property
    def typed(self) -> str:
        """Names of the options that were given."""
        return given(named(self))


@dataclass(frozen=True)
class Regression(Group):
    """Is it slower than before?"""

    baseline: Annotated[
        Path | None,
        Help(
            "JSON file of an earlier `bench -o` on this machine; exit status 1 if a bundle is slower.",
            "FILE",
            panel=EARLIER,
        ),
    ] = None
    max_slower: Annotated[
        str | None,
        Help(
            "For --baseline: how much slower is allowed, beyond noise (default: 5%).",
            "PERCENT",
            panel=EARLIER,
        ),
    ] = None

    @property
    def limit(self) -> float:
        """Relative, as in 0.05; ConfigError for text that is no percentage, or without --baseline."""
        if self.max_slower is not None and self.baseline is None:
            raise ConfigError(
                "--max-slower is for --baseline; give the file of an earlier run, or leave it out"
            )
        given = (self.max_slower or MAX_SLOWER).strip()
        number = given.removesuffix("%").strip()
        try:
            percent = float(number)
        except ValueError:
            percent = -1.0
        if not given.endswith("%") or not 0 <= percent < 1000:
            raise ConfigError(f"--max-slower: got {given!r}, expected a percentage such as 5%")
        return percent / 100


@dataclass(frozen=True)
class Written(Regression):
    """How the result is shown, and the file that keeps it."""

    panel = OUTPUT
    out: Annotated[
        Path | None,
        Help(
            "JSON file to write, with every raw sample; with --profile also a picture beside it.",
            "FILE",
            short="-o",
        ),
    ] = None
    report: Annotated[
        Path | None, Help("Page to write, which opens without a network: .html or .md.", "FILE")
    ] = None
    force: Force = False
    json: Json = False


def named(group: Group) -> dict[str, object]:
    """The values of a group by the names of its options."""
    return {f"--{name.replace('_', '-')}": value for name, value in vars(group).items()}


def given(options: Mapping[str, object]) -> str:
    """The names of those that were given, with commas."""
    return ", ".join(name for name, value in options.items() if value not in (None, False, ()))
