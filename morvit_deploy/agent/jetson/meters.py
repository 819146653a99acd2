"""Power meters: jtop's service, tegrastats, or the sensors' files. Each is read by one thread."""

from __future__ import annotations

import importlib
import subprocess
import threading
import time
from typing import Any

from .rails import Reading, Total, parse_line, total_of
from .system import System

FIRST_READING_S = 5.0  # jtop's first reading takes a second or two
ENOUGH_READINGS = 3  # the first line may be cut; the third has all the rails there are
STOP_S = 2.0


class Meter:
    """Collects readings with the moment of their arrival until it is stopped. A subclass fills `_read`."""

    name = ""

    def __init__(self, system: System, interval_ms: int) -> None:
        self.system = system
        self.interval_s = interval_ms / 1000
        self.readings: list[tuple[float, Reading]] = []
        self.skipped = 0  # lines that were cut or are something else
        self.failure: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Total | None:
        """Start reading; returns the rails that are the input power once a reading has them, None if none does."""
        self._thread.start()
        deadline = time.monotonic() + FIRST_READING_S
        while (
            time.monotonic() < deadline and len(self.readings) < ENOUGH_READINGS and self._thread.is_alive()
        ):
            if self._total() is not None:
                break
            time.sleep(0.01)
        return self._total()

    def stop(self) -> None:
        """End the thread and whatever it started."""
        self._stop.set()
        self._thread.join(STOP_S)

    def wait_past(self, at_s: float) -> None:
        """Wait for a reading later than `at_s`, at most ten intervals."""
        deadline = time.monotonic() + 10 * self.interval_s
        while time.monotonic() < deadline and self._thread.is_alive():
            if self.readings and self.readings[-1][0] > at_s:
                return
            time.sleep(self.interval_s / 10)

    def why_not(self) -> str:
        """Why it reports no input power."""
        if self.failure:
            return f"{self.name}: {self.failure}"
        if not self.readings:
            return f"{self.name}: no reading within {FIRST_READING_S:g} s"
        rails = ", ".join(sorted(self.readings[0][1].rails_mw))
        return f"{self.name}: " + (
            f"the sum of the rails {rails} is not known to be the input power"
            if rails
            else "it shows no power rails"
        )

    def _total(self) -> Total | None:
        totals = (total_of(reading.rails_mw) for _, reading in self.readings[:ENOUGH_READINGS])
        return next((total for total in totals if total is not None), None)

    def _keep(self, reading: Reading | None) -> None:
        if reading is None:
            self.skipped += 1
        else:
            self.readings.append((time.monotonic(), reading))

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # jtop raises its own classes; a meter that fails must not end a benchmark
            self.failure = str(error).replace("\n", " ") or type(error).__name__

    def _read(self) -> None:
        raise NotImplementedError


class Jtop(Meter):
    """jetson-stats: its service runs as root and sees every rail."""

    name = "jtop"

    def _read(self) -> None:
        try:
            module = importlib.import_module("jtop")
        except ImportError:
            raise RuntimeError("jetson-stats is not installed") from None
        with module.jtop(interval=self.interval_s) as board:
            while not self._stop.is_set() and board.ok():
                self._keep(jtop_reading(board.power))


class Tegrastats(Meter):
    """tegrastats prints a line every interval. Some releases show the power rails only to root."""

    name = "tegrastats"

    def __init__(self, system: System, interval_ms: int) -> None:
        super().__init__(system, interval_ms)
        self._process: subprocess.Popen[bytes] | None = None

    def _read(self) -> None:
        program = self.system.command("tegrastats")
        if program is None:
            raise RuntimeError("not found")
        self._process = subprocess.Popen(
            [program, "--interval", str(round(self.interval_s * 1000))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.system.environment(),
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._keep(parse_line(line.decode("utf-8", "replace")))
        if not self._stop.is_set():
            raise RuntimeError(f"it ended by itself (status {self._process.wait()})")

    def stop(self) -> None:
        self._stop.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        super().stop()
        if self._process is not None and self._process.stdout is not None and not self._thread.is_alive():
            self._process.stdout.close()


class Sensors(Meter):
    """The INA power monitors in /sys/class/hwmon: voltage in mV times current in mA, or power in µW."""

    name = "hwmon"

    def _read(self) -> None:
        while not self._stop.wait(self.interval_s):
            rails = sensor_rails(self.system)
            if not rails:
                raise RuntimeError("no power monitor can be read")
            self._keep(Reading(rails, {}, [], None))


def jtop_reading(power: dict[str, Any]) -> Reading | None:
    """Rails of `jtop.power` by name, with the total under its rail's name if it has one."""
    try:
        rails = {name: int(rail["power"]) for name, rail in power["rail"].items()}
        if "name" in power["tot"]:
            rails[power["tot"]["name"]] = int(power["tot"]["power"])
    except (KeyError, TypeError, ValueError):
        return None
    return Reading(rails, {}, [], None)


def sensor_rails(system: System) -> dict[str, int]:
    """Rail -> mW, from every monitor chip; channels without a label or a current are none (sums, shunt voltages)."""
    rails: dict[str, int] = {}
    for chip in system.names("/sys/class/hwmon/hwmon*"):
        if not (system.read(f"{chip}/name") or "").startswith("ina"):
            continue
        whole = system.read(f"{chip}/label")
        microwatts = system.number(f"{chip}/power1_input")
        if whole and microwatts is not None:
            rails[whole] = microwatts // 1000
        for channel in range(1, 4):
            label = system.read(f"{chip}/in{channel}_label")
            millivolts = system.number(f"{chip}/in{channel}_input")
            milliamps = system.number(f"{chip}/curr{channel}_input")
            if label and label != "NC" and millivolts is not None and milliamps is not None:
                rails[label] = millivolts * milliamps // 1000
    return rails


METERS: tuple[type[Meter], ...] = (Jtop, Tegrastats, Sensors)


def open_meter(system: System, interval_ms: int) -> tuple[Meter | None, Total | None, list[str]]:
    """The first meter that reports the input power, already running, and why those before it do not."""
    reasons: list[str] = []
    for kind in METERS:
        meter = kind(system, interval_ms)
        total = meter.start()
        if total is not None:
            return meter, total, reasons
        meter.stop()
        reasons.append(meter.why_not())
    return None, None, reasons
