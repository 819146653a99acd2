"""What this machine can export, run and measure. Libraries are imported in a child process; here is no torch.

Works where dependencies are missing or broken: that is when it is asked.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.keywords import checks_keywords
from morvit_deploy.machine.dependencies import Library, libraries, own, within
from morvit_deploy.machine.extras import install_line
from morvit_deploy.machine.importing import try_imports
from morvit_deploy.report import Report, Shown

if TYPE_CHECKING:
    from morvit_deploy.exporters.fit import BundleFit

BUSY_SHARE = (
    0.5  # of the cores in use by others: medians of a latency measurement then drift by tens of percent
)
_GPU_TIMEOUT_S = 5.0
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_MEMORY = Path("/proc/self/smaps_rollup")


@dataclass(frozen=True)
class TargetState:
    """What can be done with one target here."""

    name: str
    runs_on: str
    export: bool
    run: bool
    runs_here: str  # what runs its bundles on this machine; "" if nothing does


@dataclass(frozen=True)
class Diagnosis(Shown):
    """All that was found."""

    version: str
    python: str
    python_fits: bool
    machine: dict[str, Any] | None  # None while psutil is missing
    gpus: tuple[str, ...] | None  # None where there is no nvidia-smi to ask
    measures: dict[str, str]  # by `bench`
    conditions: dict[str, str]  # of a measurement made now
    libraries: tuple[Library, ...]
    targets: tuple[TargetState, ...]
    bundle: BundleFit | None = None  # of the bundle that was given

    @property
    def missing(self) -> tuple[Library, ...]:
        """Core dependencies that are not installed."""
        return tuple(lib for lib in self.libraries if not lib.extra and lib.installed is None)

    @property
    def broken(self) -> tuple[Library, ...]:
        """Dependencies that are installed and cannot be imported."""
        return tuple(lib for lib in self.libraries if lib.problem)

    @property
    def install(self) -> dict[str, str]:
        """The line that installs what is missing or out of range: by group, "core" first."""
        unfit = [lib for lib in self.libraries if not lib.fits or lib.problem]
        core = " ".join(f'"{lib.name}{lib.wanted}"' for lib in unfit if not lib.extra)
        extras = dict.fromkeys(lib.extra for lib in unfit if lib.extra and lib.by_pip)
        again = "--force-reinstall " if any(lib.problem and not lib.extra for lib in unfit) else ""
        return ({"core": f"pip install {again}{core}"} if core else {}) | {
            name: install_line(name) for name in extras
        }

    def __repr__(self) -> str:
        able = ", ".join(one.name for one in self.targets if one.export) or "no target"
        missing = f", missing: {', '.join(library.name for library in self.missing)}" if self.missing else ""
        broken = f", broken: {', '.join(library.name for library in self.broken)}" if self.broken else ""
        return f"Diagnosis(morvit-deploy {self.version}, Python {self.python}, exports to {able}{missing}{broken})"

    def report(self) -> Report:
        """Machine, measuring, libraries, targets, and what to install."""
        from morvit_deploy.machine.views import doctor_report

        return doctor_report(self)

    def as_dict(self) -> dict[str, Any]:
        states = [{**asdict(lib), "state": lib.state} for lib in self.libraries]
        bundle = self.bundle and self.bundle.as_dict()
        return {**asdict(self), "libraries": states, "install": self.install, "bundle": bundle}


@checks_keywords()
def doctor(bundle: str | Path | None = None) -> Diagnosis:
    """What this machine can export, run and measure; each installed library is imported in a child process.

    With `bundle` also whether it runs here: its runtime, the oldest version that it requires, and its int8 kernels.
    Raises TargetError when the package's own metadata cannot be read, BundleError for a damaged bundle.

    >>> md.doctor().install
    >>> md.doctor("build/onnx").bundle
    """
    fit = None if bundle is None else _fit(bundle)  # its errors come before the imports, which take long
    listed = tuple(libraries())
    load = (
        os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    )  # before the imports, which are load, too
    problems = try_imports(lib.name for lib in listed if lib.installed is not None)
    found = tuple(replace(lib, problem=problems.get(lib.name)) for lib in listed)
    have, gpus = {lib.name for lib in found if lib.works}, _gpus()
    machine = _machine() if "psutil" in have else None
    states = tuple(_targets(have, bool(gpus)))
    return Diagnosis(
        version=own().version,
        python=platform.python_version(),
        python_fits=within(platform.python_version(), own().metadata["Requires-Python"]),
        machine=machine,
        gpus=gpus,
        measures=_measures(),
        conditions=_conditions(machine["cores"] if machine else None, load),
        libraries=found,
        targets=states,
        bundle=fit and fit.with_runtime({state.name: state.runs_here for state in states}),
    )


def _machine() -> dict[str, Any]:
    from morvit_deploy.machine.this import this_machine

    return this_machine()


def _targets(have: set[str], gpu: bool) -> Iterator[TargetState]:
    """Each target of the registry; none while a dependency of the registry itself is missing."""
    try:
        from morvit_deploy.exporters.targets import targets
    except ModuleNotFoundError:
        return
    for name, target in targets().items():
        needs = target.needs
        here = target.runs_here(have, gpu) if have.issuperset(needs.run) else ""
        yield TargetState(name, target.runs_on, have.issuperset(needs.export), bool(here), here)


def _fit(bundle: str | Path) -> BundleFit:
    from morvit_deploy.exporters.fit import fit_here

    return fit_here(bundle)


def _gpus() -> tuple[str, ...] | None:
    """Names and memory of NVIDIA devices; None where there is no nvidia-smi, or it does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def _measures() -> dict[str, str]:
    """What `bench` can measure here."""
    memory = "resident, peak and anonymous" if _MEMORY.exists() else "resident only"
    return {"latency, throughput, load time": "yes", "memory": memory}


def _conditions(cores: int | None, load: float | None) -> dict[str, str]:
    """What would disturb a measurement now."""
    found = {}
    if cores is not None and load is not None:
        calm = load <= BUSY_SHARE * cores
        found["load"] = f"{load:.1f} on {cores} cores: " + (
            "quiet" if calm else "others compute, timings will be high"
        )
    if _GOVERNOR.is_file():
        found["clock governor"] = _GOVERNOR.read_text().strip()
    return found
