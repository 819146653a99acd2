"""A Jetson made of files: a root folder, and a folder with the only commands that it has."""

from __future__ import annotations

import stat
from pathlib import Path

import jetson_outputs as outputs
import pytest

from morvit_deploy.agent import jetson


class Board:
    """A made Jetson: a root folder, and a folder with the only commands that it has."""

    def __init__(self, folder: Path) -> None:
        self.root, self.commands = folder / "root", folder / "bin"
        self.root.mkdir()
        self.commands.mkdir()
        self.system = jetson.System(self.root, path=str(self.commands))

    def put(self, name: str, content: str | int) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))

    def command(self, name: str, script: str) -> None:
        path = self.commands / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def prints(self, name: str, text: str) -> None:
        (self.commands / f"{name}.txt").write_text(text)
        self.command(name, f"/bin/cat {self.commands / name}.txt")

    def streams(self, *lines: str, every_s: float = 0.01) -> None:
        """A tegrastats that prints the lines over and over."""
        (self.commands / "lines.txt").write_text("\n".join(lines) + "\n")
        repeat = (
            f'while read -r line; do echo "$line"; /bin/sleep {every_s}; done < {self.commands}/lines.txt'
        )
        self.command("tegrastats", f"while true; do {repeat}; done")

    def packages(self, installed: dict[str, str]) -> None:
        cases = "\n".join(f"'{pattern}') echo '{version}';;" for pattern, version in installed.items())
        self.command("dpkg-query", f'case "$3" in\n{cases}\n*) exit 1;;\nesac')


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """An Orin Nano Super on JetPack 6.2: mode 25W, clocks free, as /sys and nvpmodel show it without root."""
    board = Board(tmp_path)
    board.put("/etc/nv_tegra_release", outputs.RELEASE_36)
    board.put(
        "/proc/device-tree/model", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0"
    )
    compatible = "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0"
    board.put("/proc/device-tree/compatible", compatible)
    board.put("/usr/local/cuda/version.json", '{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}')
    board.put("/etc/nvpmodel.conf", outputs.CONF_SUPER)
    board.packages(outputs.PACKAGES_621)
    board.prints("nvpmodel", "NV Power Mode: 25W\n1\n")
    board.command("jetson_clocks", "echo 'Error: Run this script as a root user'; exit 1")
    set_clocks(board, cpu=(729600, 1344000, 960000), gpu=(306000000, 918000000, 306000000))
    board.put("/sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    board.put("/sys/class/thermal/thermal_zone0/temp", "49468\n")
    board.put("/sys/class/thermal/thermal_zone1/type", "gpu-thermal\n")
    board.put("/sys/class/thermal/thermal_zone1/temp", "50125\n")
    board.put("/sys/class/thermal/thermal_zone2/type", "cv0-thermal\n")  # cannot be read while gated
    for event, count in (("oc1", 0), ("oc2", 0), ("oc3", 7)):
        board.put(f"/sys/class/hwmon/hwmon3/{event}_event_cnt", count)
    board.put("/sys/class/thermal/cooling_device9/type", "gpu-throttle-alert\n")
    board.put("/sys/class/thermal/cooling_device9/cur_state", 0)
    board.put("/sys/devices/platform/gpu-throttle-alert/thermal_trip_event", 0)
    return board


def set_clocks(board: Board, cpu: tuple[int, int, int], gpu: tuple[int, int, int]) -> None:
    for part, khz in (("min", cpu[0]), ("max", cpu[1]), ("cur", cpu[2])):
        board.put(f"/sys/devices/system/cpu/cpufreq/policy0/scaling_{part}_freq", khz)
    board.put("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "schedutil\n")
    for part, hz in (("min", gpu[0]), ("max", gpu[1]), ("cur", gpu[2])):
        board.put(f"/sys/class/devfreq/17000000.gpu/{part}_freq", hz)
