"""Jetson conditions: parsers on what Jetsons printed, and the whole on a made file tree with commands that run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import jetson_outputs as outputs
import pytest
from device_code import assert_standalone, old_python
from fake_jetson import Board, set_clocks

import morvit_deploy.agent.jetson
from morvit_deploy.agent import jetson
from morvit_deploy.agent.jetson import clocks, energy, heat, identity, meters, power_mode, rails
from morvit_deploy.agent.jetson.energy import Block, Sample, Unmeasured

PACKAGE = Path(morvit_deploy.agent.jetson.__file__).parent
AGENT = PACKAGE.parent
LINES = {
    name: line for name, line in vars(outputs).items() if isinstance(line, str) and " RAM " in f" {line}"
}


# --- recorded lines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "used", "milliwatts"),
    [
        (outputs.ORIN_NX_5, ("VDD_IN",), 5299),
        (outputs.ORIN_NANO_6, ("VDD_IN",), 4556),
        (outputs.XAVIER_NX_4, ("VDD_IN",), 4067),
        (outputs.NANO_4, ("POM_5V_IN",), 900),
        (outputs.AGX_ORIN_5, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 2399 + 400 + 4032),
        (outputs.AGX_ORIN_6, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 3205 + 4405 + 4767),
        (outputs.AGX_ORIN_7, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 5139 + 3268 + 5500),
        (outputs.AGX_ORIN_NEGATIVE, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 1592 - 398 + 2624),
        (outputs.THOR_7, ("VIN",), 19780),
        (outputs.THOR_72, ("VIN",), 87426),
        (outputs.THOR_7_NO_VIN, ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"), 0 + 4165 + 4126),
        (outputs.AGX_XAVIER_4, ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), 311 + 932 + 621 + 1482),
    ],
)
def test_the_input_power_of_a_recorded_line(line: str, used: tuple[str, ...], milliwatts: int) -> None:
    reading = rails.parse_line(line)
    assert reading is not None
    total = rails.total_of(reading.rails_mw)
    assert total is not None and total.rails == used
    assert rails.total_mw(reading, total) == milliwatts


def test_a_line_tells_temperatures_and_clocks() -> None:
    reading = rails.parse_line(outputs.THOR_7)
    assert reading is not None
    assert reading.gpu_mhz == [314, 314, 314] and reading.emc_mhz == 2750
    assert reading.temperatures_c == {
        **{"cpu": 37.343, "tj": 38.875, "soc012": 37.468},
        **{"gpu": 38.875, "soc345": 37.406},
    }
    reading = rails.parse_line(outputs.AGX_ORIN_5)
    assert reading is not None
    assert "gpu" not in reading.temperatures_c and reading.temperatures_c["tj"] == 42.593  # −256 °C is off
    assert "NC" not in reading.rails_mw
    reading = rails.parse_line(outputs.NANO_4)
    assert reading is not None and "pmic" not in reading.temperatures_c and reading.gpu_mhz == []


@pytest.mark.parametrize("name", sorted(LINES))
def test_a_line_cut_anywhere_gives_the_true_power_or_none(name: str) -> None:
    whole = rails.parse_line(LINES[name])
    assert whole is not None
    total = rails.total_of(whole.rails_mw)
    assert total is not None
    for length in range(len(LINES[name])):
        cut = rails.parse_line(LINES[name][:length])
        assert cut is None or rails.total_mw(cut, total) in (None, rails.total_mw(whole, total))


@pytest.mark.parametrize(
    "line", ["", "\n", "tegrastats: cannot open", "VDD_IN 1mW/1mW", "RAM x/yMB VDD_IN 1mW"]
)
def test_what_is_no_line_of_tegrastats_is_none(line: str) -> None:
    assert rails.parse_line(line) is None


def test_rails_that_are_no_known_total_are_not_added_up() -> None:
    assert rails.total_of(["VDD_GPU_SOC", "VIN_SYS_5V0"]) is None
    assert rails.total_of([]) is None


# --- modes, clocks, identity --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "number"),
    [
        (outputs.MODE_MAXN, "MAXN", 0),
        (outputs.MODE_SUPER, "MAXN_SUPER", 2),
        (outputs.MODE_VERBOSE, "MODE_15W_6CORE", 2),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: 30W\n", "30W", None),
    ],
)
def test_nvpmodel(text: str, name: str, number: int | None) -> None:
    assert power_mode.parse_query(text) == {"name": name, "number": number}


def test_the_fastest_mode_is_not_always_number_0() -> None:
    assert power_mode.fastest(power_mode.parse_modes(outputs.CONF_SUPER)) == 2
    assert power_mode.fastest({0: "MAXN", 1: "120W"}) == 0
    assert power_mode.fastest({0: "MAXN", 3: "MAXN_SUPER"}) == 3
    assert power_mode.fastest({}) is None


def test_the_power_mode_without_nvpmodel(board: Board) -> None:
    (board.commands / "nvpmodel").unlink()
    board.put("/var/lib/nvpmodel/status", "pmode:0002 fmode:quiet")
    mode = power_mode.power_mode(board.system)
    assert (mode["name"], mode["number"], mode["source"]) == ("MAXN_SUPER", 2, "/var/lib/nvpmodel/status")
    assert power_mode.is_fastest(mode) is True
    (board.root / "var/lib/nvpmodel/status").unlink()
    mode = power_mode.power_mode(board.system)
    assert mode["name"] is None and power_mode.is_fastest(mode) is None


@pytest.mark.parametrize(
    ("text", "locked", "names"),
    [
        (outputs.SHOW_NANO_4, False, ["cpu0", "GPU", "EMC"]),
        (outputs.SHOW_NANO_6, False, ["cpu0", "cpu5", "GPU", "EMC"]),
        (outputs.SHOW_NANO_6_LOCKED, True, ["cpu0", "GPU", "EMC"]),
        (outputs.SHOW_AGX_72, True, ["cpu0", "cpu10", "GPU", "EMC"]),
        (outputs.SHOW_THOR_7, True, ["cpu0", "cpu13", "gpu-gpc-0", "EMC"]),
    ],
)
def test_jetson_clocks(text: str, locked: bool, names: list[str]) -> None:
    units = clocks.parse_show(text)
    assert [unit["name"] for unit in units] == names
    assert clocks.all_locked(units) is locked


def test_a_core_that_is_off_says_nothing_of_the_lock() -> None:
    off = "cpu1: Online=0 Governor=schedutil MinFreq=1 MaxFreq=2 CurrentFreq=1\n"
    assert clocks.all_locked(clocks.parse_show(outputs.SHOW_NANO_6_LOCKED + off)) is True


def test_clocks_that_cannot_be_read_are_unknown(tmp_path: Path) -> None:
    read = clocks.read_clocks(Board(tmp_path).system)
    assert read == {"units": [], "locked": None, "source": "/sys"}


def test_the_memory_clock_is_held_by_its_flag_alone(board: Board) -> None:
    set_clocks(board, cpu=(1728000, 1728000, 1728000), gpu=(1020000000, 1020000000, 1020000000))
    assert clocks.read_clocks(board.system)["locked"] is True  # debugfs is for root: the memory is not known
    emc = "/sys/kernel/debug/bpmp/debug/clk/emc"
    for name, hz in (("min_rate", 204000000), ("max_rate", 3199000000), ("rate", 3199000000)):
        board.put(f"{emc}/{name}", hz)
    for flag, locked in ((1, True), (0, False)):
        board.put(f"{emc}/mrq_rate_locked", flag)
        assert clocks.read_clocks(board.system)["locked"] is locked


@pytest.mark.parametrize(
    ("text", "l4t", "version", "series"),
    [
        (outputs.RELEASE_36, "36.4.3", "6.2", 6),
        (outputs.RELEASE_38, "38.2.2", "7.0", 7),
        (outputs.RELEASE_39, "39.2.0", "7.2", 7),
        ("# R35 (release), REVISION: 4.1, GCID: 1", "35.4.1", "5.1.2", 5),
        ("# R36 (release), REVISION: 99.0, GCID: 1", "36.99.0", None, 6),
        ("# R71 (release), REVISION: 1.0, GCID: 1", "71.1.0", None, None),
    ],
)
def test_l4t_to_jetpack(tmp_path: Path, text: str, l4t: str, version: str | None, series: int | None) -> None:
    board = Board(tmp_path)
    board.put("/etc/nv_tegra_release", text)
    found = identity.identity(board.system)
    assert (found["l4t"], found["jetpack"], found["jetpack_series"]) == (l4t, version, series)


def test_a_release_that_is_not_in_the_table_is_named_by_its_package(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.packages({"nvidia-jetpack": "7.9+b1", "nvidia-l4t-core": "39.9.0-20270101000000"})
    found = identity.identity(board.system)
    assert (found["l4t"], found["jetpack"]) == ("39.9.0", "7.9")


def test_identity(board: Board) -> None:
    found = identity.identity(board.system)
    assert found == {
        "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "module": "Jetson Orin Nano 8 GB (developer kit)",
        "part": "p3767-0005",
        "chip": "tegra234",
        "compute_capability": "8.7",
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "jetpack_series": 6,
        "cuda": "12.6.68",
        "tensorrt": "10.3.0.30",
        "tensorrt_python": False,
        "cudnn": "9.3.0.75",
    }


def test_the_newest_of_several_packages_counts(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.packages({"libnvinfer[0-9]*": "8.6.2.3-1+cuda12.2\n\n10.3.0.30-1+cuda12.5"})
    assert identity.package_version(board.system, "libnvinfer[0-9]*") == "10.3.0.30"


def test_another_machine_is_no_jetson(tmp_path: Path) -> None:
    described = jetson.describe(Board(tmp_path).system)
    assert described["jetson"] is None and "nv_tegra_release" in described["reason"]
    assert jetson.warnings(described) == [] and jetson.hints(described) == []


def test_a_command_that_hangs_counts_as_missing(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morvit_deploy.agent.jetson.system.TIMEOUT_S", 0.1)
    board.command("nvpmodel", "exec /bin/sleep 30")
    assert board.system.run("nvpmodel", "-q") is None


# --- energy -------------------------------------------------------------------------------------------------------


def ramp(seconds: float, milliwatts: Any, every_s: float = 0.1) -> list[Sample]:
    count = round(seconds / every_s)
    return [Sample(step * every_s, float(milliwatts(step * every_s))) for step in range(count + 1)]


def test_the_trapezoid_rule_is_exact_for_a_ramp() -> None:
    samples = ramp(2, lambda at: 1000 * at)
    assert energy.integrate(samples, 0.53, 1.47, 0.5) == pytest.approx(1000 * (1.47**2 - 0.53**2) / 2)


def test_energy_per_image_less_idle() -> None:
    samples = ramp(10, lambda at: 5000 if at < 5 else 8000)
    found = energy.energy_per_image(samples, (0, 4.5), [Block(6, 7, 10), Block(8, 9, 20)])
    assert found["reason"] is None and found["images"] == 30
    assert found["per_image_mj"] == pytest.approx((8000 - 5000) * 2 / 30)
    assert found["per_image_with_idle_mj"] == pytest.approx(8000 * 2 / 30)
    assert found["idle_mw"] == 5000 and found["mean_mw"] == pytest.approx(8000) and found["remarks"] == []


@pytest.mark.parametrize(
    ("samples", "idle", "blocks", "says"),
    [
        (ramp(10, lambda at: 5000), (0, 4), [], "no images"),
        (ramp(10, lambda at: 5000), (0, 4), [Block(5, 6, 0)], "no images"),
        (ramp(10, lambda at: 9000 if at < 5 else 8000), (0, 4), [Block(6, 7, 5)], "other work ran"),
        (ramp(10, lambda at: at), (0, 4), [Block(6, 6.05, 5)], "measure for longer"),
        (ramp(10, lambda at: at), (0, 0.1), [Block(6, 7, 5)], "the idle time before"),
        (ramp(5, lambda at: at), (0, 3), [Block(4, 9, 5)], "the beginning or the end"),
        ([*ramp(5, lambda at: at), Sample(8, 9.0)], (0, 3), [Block(4, 8, 5)], "no power was read for 3.00 s"),
        ([], (0, 3), [Block(4, 8, 5)], "power was read 0 times"),
    ],
)
def test_why_there_is_no_energy(
    samples: list[Sample], idle: tuple[float, float], blocks: list[Block], says: str
) -> None:
    found = energy.energy_per_image(samples, idle, blocks)
    assert found["per_image_mj"] is None and says in found["reason"]


def test_a_restless_machine_is_remarked() -> None:
    samples = ramp(10, lambda at: (3000 if round(at * 10) % 2 else 7000) if at < 5 else 6000)
    found = energy.energy_per_image(samples, (0, 4), [Block(6, 7, 5)])
    assert any("other work ran" in remark for remark in found["remarks"])
    assert any("noise" in remark for remark in found["remarks"])


def test_integrate_refuses_an_empty_record() -> None:
    with pytest.raises(Unmeasured):
        energy.integrate([], 0, 1, 0.5)


# --- meters and the watch -----------------------------------------------------------------------------------------

LOADED = outputs.ORIN_NANO_6.replace("VDD_IN 4556mW", "VDD_IN 9556mW").replace(
    "GR3D_FREQ 0%", "GR3D_FREQ 99%@[918]"
)


def watched(board: Board, images: int = 4) -> jetson.Watch:
    with jetson.Watch(board.system, idle_s=0.3, interval_ms=10) as watch, watch.block(images):
        time.sleep(0.3)
    return watch


def test_a_watch_reads_a_running_tegrastats(board: Board) -> None:
    board.streams(outputs.ORIN_NANO_6, "a line of something else", outputs.ORIN_NANO_6[:120])
    watch = watched(board)
    found = watch.energy()
    assert found["source"] == "tegrastats" and found["rails"] == ["VDD_IN"] and "input" in found["rails_why"]
    assert (
        found["per_image_mj"] is None and "4556 mW while idle" in found["reason"]
    )  # it drew as much as before
    assert found["skipped"] > 5 and found["samples"] > 10
    assert any("jtop" in reason for reason in found["not_used"])
    assert watch.seen()["hottest_c"] == 48.625
    assert watch._meter is not None and isinstance(watch._meter, meters.Tegrastats)
    assert (
        watch._meter._process is not None and watch._meter._process.poll() is not None
    )  # nothing is left running


def test_energy_of_a_load_that_begins_with_the_block(board: Board) -> None:
    load = board.root / "loaded"
    (board.commands / "idle").write_text(outputs.ORIN_NANO_6)
    (board.commands / "busy").write_text(LOADED)
    show = f"if [ -e {load} ]; then /bin/cat {board.commands}/busy; else /bin/cat {board.commands}/idle; fi; echo"
    board.command("tegrastats", f"while true; do {show}; /bin/sleep 0.01; done")
    with jetson.Watch(board.system, idle_s=0.3, interval_ms=10) as watch:
        load.touch()
        time.sleep(0.1)
        started = time.monotonic()
        with watch.block(images=8):
            time.sleep(0.4)
        seconds = time.monotonic() - started
    found = watch.energy()
    assert found["reason"] is None
    assert found["per_image_mj"] == pytest.approx((9556 - 4556) * seconds / 8, rel=0.01)  # ends of the block
    assert watch.seen()["gpu_mhz"] == [918, 918]


def test_a_tegrastats_that_dies_leaves_no_figure(board: Board) -> None:
    lines = "\n".join(["echo '" + outputs.ORIN_NANO_6 + "'; /bin/sleep 0.01"] * 40)
    board.command("tegrastats", lines)
    with jetson.Watch(board.system, idle_s=0.2, interval_ms=10) as watch:
        time.sleep(0.5)
        with watch.block(images=3):
            time.sleep(0.2)
    found = watch.energy()
    assert found["per_image_mj"] is None and found["reason"]


def test_without_power_rails_the_sensors_are_read(board: Board) -> None:
    board.streams(outputs.ORIN_NANO_6.split(" VDD_IN")[0])  # as without root on some releases
    board.put("/sys/class/hwmon/hwmon1/name", "ina3221\n")
    for channel, label, millivolts, milliamps in ((1, "VDD_IN", 5000, 900), (2, "VDD_CPU_GPU_CV", 5000, 100)):
        board.put(f"/sys/class/hwmon/hwmon1/in{channel}_label", label)
        board.put(f"/sys/class/hwmon/hwmon1/in{channel}_input", millivolts)
        board.put(f"/sys/class/hwmon/hwmon1/curr{channel}_input", milliamps)
    board.put("/sys/class/hwmon/hwmon1/in7_label", "sum of shunt voltages")
    board.put("/sys/class/hwmon/hwmon4/name", "ina238\n")
    board.put("/sys/class/hwmon/hwmon4/label", "VIN\n")
    board.put("/sys/class/hwmon/hwmon4/power1_input", 20986000)
    assert meters.sensor_rails(board.system) == {"VDD_IN": 4500, "VDD_CPU_GPU_CV": 500, "VIN": 20986}
    found = watched(board).energy()
    assert found["source"] == "hwmon" and "4500 mW" in found["reason"]
    assert any("shows no power rails" in reason for reason in found["not_used"])


def test_where_nothing_can_be_read_there_is_a_reason_and_no_waiting(board: Board) -> None:
    started = time.monotonic()
    with jetson.Watch(board.system, idle_s=60) as watch, watch.block(images=1):
        pass
    assert time.monotonic() - started < 5
    found = watch.energy()
    assert found["per_image_mj"] is None and found["source"] is None
    for part in ("jtop", "tegrastats: not found", "hwmon: no power monitor"):
        assert part in found["reason"]


def test_rails_of_an_unknown_board_are_not_added_up(board: Board) -> None:
    board.streams(outputs.ORIN_NANO_6.replace("VDD_IN", "VDD_NEW"))
    reason = watched(board).energy()["reason"]
    assert "the sum of the rails VDD_CPU_GPU_CV, VDD_NEW, VDD_SOC is not known" in reason


def test_a_first_line_that_is_cut_does_not_decide(board: Board) -> None:
    (board.commands / "cut").write_text(outputs.AGX_ORIN_6.split(" VDD_CPU_CV")[0])
    (board.commands / "whole").write_text(outputs.AGX_ORIN_6)
    show = f"/bin/cat {board.commands}/whole; echo; /bin/sleep 0.01"
    board.command("tegrastats", f"/bin/cat {board.commands}/cut; echo; while true; do {show}; done")
    found = watched(board).energy()
    assert found["source"] == "tegrastats" and found["rails"][0] == "VDD_GPU_SOC" and found["skipped"] == 1


def test_a_block_that_fails_is_not_counted(board: Board) -> None:
    board.streams(outputs.ORIN_NANO_6)
    watch = jetson.Watch(board.system, idle_s=0.05, interval_ms=10)
    with pytest.raises(ZeroDivisionError), watch, watch.block(images=5):
        raise ZeroDivisionError
    assert watch.blocks == []


class FakeJtop:
    """What jetson-stats 4 offers: a context manager whose `ok` waits for the next reading."""

    power: ClassVar[dict[str, Any]] = {
        "rail": {"VDD_CPU_GPU_CV": {"power": 483, "avg": 480}, "VDD_SOC": {"power": 1451, "avg": 1450}},
        "tot": {"name": "VDD_IN", "power": 4556, "avg": 4550},
    }

    def __init__(self, interval: float) -> None:
        self.interval = interval

    def __enter__(self) -> FakeJtop:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def ok(self) -> bool:
        time.sleep(self.interval)
        return True


class BrokenJtop(FakeJtop):
    def __enter__(self) -> FakeJtop:
        raise RuntimeError("The jtop.service is not active. Please run:\nsudo jtop --install-service")


def test_jtop_comes_first(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", type(sys)("jtop"))
    monkeypatch.setattr(sys.modules["jtop"], "jtop", FakeJtop, raising=False)
    board.streams(outputs.ORIN_NANO_6)
    found = watched(board).energy()
    assert found["source"] == "jtop" and found["rails"] == ["VDD_IN"] and "4556 mW" in found["reason"]


def test_a_jtop_without_its_service_gives_way_to_tegrastats(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jtop", type(sys)("jtop"))
    monkeypatch.setattr(sys.modules["jtop"], "jtop", BrokenJtop, raising=False)
    board.streams(outputs.ORIN_NANO_6)
    found = watched(board).energy()
    assert found["source"] == "tegrastats" and "jtop.service is not active" in found["not_used"][0]


def test_jtop_rails_whose_sum_is_the_total() -> None:
    rail = {"VDD_GPU_SOC": {"power": 3205}, "VDD_CPU_CV": {"power": 4405}, "VIN_SYS_5V0": {"power": 4767}}
    rail["VDDQ_VDD2_1V8AO"] = {"power": 500}
    reading = meters.jtop_reading({"rail": rail, "tot": {"power": 12877, "avg": 0}})
    assert reading is not None
    total = rails.total_of(reading.rails_mw)
    assert total is not None and rails.total_mw(reading, total) == 3205 + 4405 + 4767  # not VDDQ again
    assert meters.jtop_reading({"rail": {}}) is None


# --- the whole ----------------------------------------------------------------------------------------------------


def test_describe_and_warn_before(board: Board) -> None:
    before = jetson.describe(board.system)
    assert before["clocks"]["source"] == "/sys" and before["clocks"]["locked"] is False
    assert before["heat"]["silent"] == ["cv0"] and before["heat"]["hottest_c"] == 50.125
    (warning,) = jetson.warnings(before)
    assert "25W, not MAXN_SUPER" in warning and warning.endswith("sudo nvpmodel -m 2 && sudo jetson_clocks")
    assert jetson.hints(before) == [
        "TensorRT is there, its Python module is not: sudo apt-get install python3-libnvinfer"
    ]
    assert jetson.warnings(json.loads(json.dumps(before))) == [warning]  # they may be made on another machine


def test_a_locked_board_in_its_fastest_mode_gets_no_warning(board: Board) -> None:
    board.prints("nvpmodel", outputs.MODE_SUPER)
    board.prints("jetson_clocks", outputs.SHOW_NANO_6_LOCKED)
    before = jetson.describe(board.system)
    assert before["clocks"]["source"] == "jetson_clocks --show" and jetson.warnings(before) == []


def test_the_fastest_mode_with_free_clocks_is_warned_of(board: Board) -> None:
    board.prints("nvpmodel", outputs.MODE_SUPER)
    (warning,) = jetson.warnings(jetson.describe(board.system))
    assert warning.startswith("the clocks are not locked")


def test_what_changed_in_between_is_said(board: Board) -> None:
    before = jetson.describe(board.system)
    board.prints("nvpmodel", "NV Power Mode: 15W\n0\n")
    set_clocks(board, cpu=(729600, 1113600, 960000), gpu=(306000000, 918000000, 306000000))
    board.put("/sys/class/hwmon/hwmon3/oc3_event_cnt", 12)
    board.put("/sys/devices/platform/gpu-throttle-alert/thermal_trip_event", 2)
    board.put("/sys/class/thermal/cooling_device9/cur_state", 1)
    board.put("/sys/class/thermal/thermal_zone1/temp", "91000\n")
    board.streams(outputs.ORIN_NANO_6)
    after = jetson.read_state(board.system)
    assert heat.grown(before["heat"], after["heat"]) == {"over_current": {"oc3": 5}, "heat_trips": {"gpu": 2}}
    assert after["heat"]["hottest_c"] - before["heat"]["hottest_c"] == pytest.approx(91 - 50.125)
    text = "\n".join(jetson.warnings(before, after))
    assert watched(board).energy()["reason"] is not None
    for part in (
        "changed from 25W to 15W",
        "policy0: 729.6-1344 MHz became 729.6-1113.6 MHz",
        "instantaneous over-current (oc3): 5 events",
        "heat: gpu passed its limit 2 times",
        "gpu-throttle-alert holds the clocks down",
        "warmed from 50 to 91 °C",
    ):
        assert part in text
    json.dumps(after)


def test_heat_counters_that_stand_still_are_not_named() -> None:
    still = {"over_current": {"oc3": 7}, "heat_trips": {"gpu": 1}, "throttling": []}
    assert heat.grown(still, still) == {"over_current": {}, "heat_trips": {}}
    assert heat.throttled(still, still) == []


# --- Python 3.8 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_python_38_syntax_and_nothing_but_the_standard_library(path: Path) -> None:
    assert_standalone(path, own_folder=True)


@pytest.mark.skipif(old_python("3.8") is None, reason="needs a Python 3.8")
def test_it_runs_on_python_38(board: Board) -> None:
    board.streams(outputs.ORIN_NANO_6)
    program = f"""
import json, sys, time
sys.path.insert(0, {str(AGENT)!r})
import jetson
system = jetson.System({str(board.root)!r}, path={str(board.commands)!r})
before = jetson.describe(system)
with jetson.Watch(system, idle_s=0.2, interval_ms=10) as watch:
    with watch.block(images=2):
        time.sleep(0.2)
print(json.dumps({{**before, **jetson.read_state(system), "energy": watch.energy()}}))
"""
    python = old_python("3.8")
    assert python is not None
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["jetson"]["jetpack"] == "6.2" and report["energy"]["source"] == "tegrastats"
