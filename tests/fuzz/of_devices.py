"""Device files of `bench --device-file`. They are read as the command reads them, and no device is reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from mutations import bytes_of, edited, toml_of
from promise import Case, Ended, Kind, called
from seeds import DEVICES

from morvit_deploy.cli.fleet.devices import read_devices
from morvit_deploy.cli.shared.bench_options import Timing
from morvit_deploy.measuring.fleet.file import tomllib

FILE = "devices.toml"
NUMBERS = ("threads", "runs", "blocks", "warmup", "starts")


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    content = (seeds / FILE).read_bytes()
    texts = edited(DEVICES).map(lambda document: toml_of(document).encode(errors="replace"))
    return st.one_of(texts, texts, bytes_of(content)).map(lambda text: Case((), {FILE: text}))


def act(folder: Path, case: Case) -> Ended:
    """Read the file; the output is each device's kind and numbers."""
    return called(lambda: json.dumps(_read(folder / FILE)))


def _read(path: Path) -> dict[str, Any]:
    return {
        name: [device.kind, {key: device.keywords[key] for key in NUMBERS if key in device.keywords}]
        for name, device in read_devices(path, Timing()).items()
    }


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """Every table is a device, with the numbers that stand in it."""
    tables = tomllib.loads((folder / FILE).read_text(encoding="utf-8"))["device"]
    stands = {
        table["name"]: [table["kind"], {key: table[key] for key in NUMBERS if key in table}]
        for table in tables
    }
    whole = len(stands) == len(tables) and all(
        type(number) is int and number >= 0 for _, numbers in stands.values() for number in numbers.values()
    )
    return "" if whole and json.loads(ended.output) == stands else "the file was not read as it stands"


KIND = Kind("devices", 400, (FILE,), cases, wrong, act)
