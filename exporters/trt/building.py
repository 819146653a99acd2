"""`build` as a Python function, and what it returns. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morvit_deploy.agent.trt.build import PRODUCT
from morvit_deploy.exporters.trt.build import build_here
from morvit_deploy.exporters.trt.build_remote import build_on
from morvit_deploy.exporters.trt.names import Flavor
from morvit_deploy.exporters.trt.options import TrtOptions
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.remote.host import Host
from morvit_deploy.report import Report, Shown, Table, numbered, size


@dataclass(frozen=True)
class Built(Shown):
    """The engines of a bundle; `record` is what `engines.json` beside them holds."""

    folder: Path
    record: dict[str, Any]

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engine files."""
        return tuple(one["engine"] for one in self.record["engines"])

    def __repr__(self) -> str:
        built_by = f"{PRODUCT[self.record['flavor']]} {self.record['tensorrt']}"
        return f"Built({str(self.folder)!r}, {numbered(len(self.engines), 'engine')}, {built_by})"

    def report(self) -> Report:
        """A row for each engine."""
        return engines_report(self.record)

    def as_dict(self) -> dict[str, Any]:
        """What `build --json` prints."""
        return {"bundle": str(self.folder), **self.record}


@checks_keywords()
def build(
    bundle: str | Path,
    *,
    host: str | Host | None = None,
    flavor: Flavor | None = None,
    compute_capability: Sequence[str] = (),
    rebuild: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
) -> Built:
    """Build the engines of a `trt` bundle, here or on `host`; from there they come back into the bundle.

    `flavor` is "tensorrt" or "rtx" (default: the bundle's, else what is installed); `compute_capability` lists the
    GPUs that rtx builds for, as "SM89". Engines that are up to date are kept, unless `rebuild`. `tell` is called with
    each stage. Raises ConfigError, BundleError, TargetError, OutputError; of a host also LostError.

    >>> md.build("build/trt", host="user@jetson")
    """
    wanted = tuple(compute_capability)
    TrtOptions(flavor=flavor, compute_capability=wanted)  # which checks them
    folder = Path(bundle)
    if host is None:
        record = build_here(folder, flavor=flavor, compute_capability=wanted, rebuild=rebuild, tell=tell)
    else:
        place = Host(host) if isinstance(host, str) else host
        record = build_on(folder, place, flavor=flavor, compute_capability=wanted, rebuild=rebuild, tell=tell)
    return Built(folder, record)


def engines_report(record: dict[str, Any]) -> Report:
    """A row for each engine: its size, how long it took to build, and what it is for."""
    rows = [
        (one["engine"], size(one["bytes"]), f"{one['seconds']:.1f}", ", ".join(one["compute_capability"]))
        for one in record["engines"]
    ]
    where = record["device"]["name"] if record["device"] else "no GPU there"
    caption = f"{PRODUCT[record['flavor']]} {record['tensorrt']}, {where}"
    columns = ("engine", "size", "seconds", "built for")
    outcome = f"{numbered(len(rows), 'engine')} for {caption}."
    return Report("Engines", [Table("Engines", columns, rows, numeric=(1, 2), caption=caption)], outcome)
