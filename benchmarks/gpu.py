"""The static module and the agent's CUDA driver on an NVIDIA GPU: `python benchmarks/gpu.py -o gpu.json`.

Three parts, each in a process of its own: the driver, routing agreement by precision, images per second. About five
minutes. The file is written after every result, so what was measured survives a cut. `--device cpu --quick` tries all
but the driver and CUDA graphs on a CPU; `--report gpu.json` prints the tables of a file. Exit status 1 when a part
failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from common import run, write_json
from gpu_report import failures, tables

from morvit_deploy.errors import TargetError

PARTS = ("driver", "agreement", "speed")
PART_S = {"driver": 60.0, "agreement": 150.0}  # at most; speed takes what is left
ASKED = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw,persistence_mode"


def main() -> int:
    """Measure, print; the exit status."""
    options = _options()
    if options.report:
        data = json.loads(options.report.read_text())
    elif options.part:
        return _part(options)
    else:
        data = _measure(options)
    print("\n".join(table.markdown() for table in tables(data)))
    for failure in failures(data):
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures(data) else 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every part in turn, in processes of their own; all results."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise TargetError("PyTorch sees no CUDA GPU here; try the script with `--device cpu --quick`")
    until = time.time() + options.seconds
    results = Results(options.out)
    results.data = {"conditions": conditions(options.device)}
    results.write()
    for part in PARTS[options.device == "cpu" :]:  # a CPU has no driver
        left = until - time.time()
        limit = min(left, PART_S.get(part, left))
        print(f"{part}: at most {limit:.0f} s", file=sys.stderr, flush=True)
        said = _run_part(part, options, time.time() + limit)
        results = Results.read(options.out)
        results.data.setdefault(part, {})
        if said is not None:
            results.data[part]["ended"] = {"error": said}
        results.data["conditions"][f"after {part}"] = smi()
        results.write()
    return results.data


def _run_part(part: str, options: argparse.Namespace, until: float) -> str | None:
    """Run this script for one part; why it ended early, if it did."""
    command = [sys.executable, __file__, "--part", part, "-o", options.out, "--device", options.device]
    command += ["--until", f"{until:.0f}"] + (["--quick"] if options.quick else [])
    try:
        status = subprocess.run(command, timeout=max(1.0, until - time.time()), check=False).returncode
    except subprocess.TimeoutExpired:
        return "the time was used up"
    return f"exit status {status}" if status else None


def _part(options: argparse.Namespace) -> int:
    """One part, in this process."""
    save = Results.read(options.out).saver(options.part)
    if options.part == "driver":
        from gpu_driver import driver

        driver(save)
    elif options.part == "agreement":
        from gpu_agreement import agreement

        agreement(options.device, options.quick, save)
    else:
        from gpu_speed import speed

        speed(options.device, options.quick, options.until, save)
    return 0


class Results:
    """The file, written after every result."""

    def __init__(self, path: Path, data: dict[str, Any] | None = None) -> None:
        self.path, self.data = path, data or {}

    @classmethod
    def read(cls, path: Path) -> Results:
        """What has been written so far."""
        return cls(path, json.loads(path.read_text()))

    def write(self) -> None:
        """Replace the file."""
        write_json(self.path, self.data)

    def saver(self, part: str) -> Callable[[str, dict[str, Any]], None]:
        """A function that adds a result of a part and writes the file."""

        def save(name: str, result: dict[str, Any]) -> None:
            self.data.setdefault(part, {})[name] = result
            self.write()
            print(f"{part}: {name}", file=sys.stderr, flush=True)

        return save


def conditions(device: str) -> dict[str, Any]:
    """Date, versions and the GPU, before anything is measured."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpu": torch.cuda.get_device_name(0) if device == "cuda" else None,
        "before": smi(),
    }


def smi() -> dict[str, str] | None:
    """Clocks, temperature and driver as `nvidia-smi` reports them; None without it."""
    command = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(ASKED.split(","), (field.strip() for field in said.strip().split(",")), strict=False))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The static module and the CUDA driver on an NVIDIA GPU.")
    parser.add_argument("-o", "--out", type=Path, default=Path("gpu.json"), help="JSON file to write")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="print the tables of a file; measure nothing"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="few images and runs, to try the script")
    parser.add_argument("--seconds", type=float, default=450, help="end after this time (default: 450)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # a process of its own asks for it
    parser.add_argument("--until", type=float, default=float("inf"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
