"""Tables of a diagnosis. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from morvit_deploy.machine.dependencies import Library
from morvit_deploy.machine.diagnosis import Diagnosis
from morvit_deploy.report import Report, Table

if TYPE_CHECKING:
    from morvit_deploy.exporters.fit import BundleFit

TESTS = "dev"  # an extra that no user of the package installs


def doctor_report(found: Diagnosis) -> Report:
    """Machine, measuring, libraries, targets, and what to install."""
    parts = [] if found.bundle is None else [bundle_table(found.bundle)]
    parts += [target_table(found), machine_table(found), library_table(found)]
    if rows := [(group, line) for group, line in found.install.items() if group != TESTS]:
        parts.append(Table("To install", ("for", "line"), rows))
    return Report(f"morvit-deploy {found.version}", [*parts], _result(found))


def _result(found: Diagnosis) -> str:
    """What works here, and what is broken."""
    exports = ", ".join(state.name for state in found.targets if state.export) or "no target"
    runs = "; ".join(f"{state.name} with {state.runs_here}" for state in found.targets if state.run)
    broken = [lib for lib in found.broken if lib.extra != TESTS]
    wrong = "".join(f" {lib.name} is installed but cannot be imported." for lib in broken)
    return f"This machine exports to {exports} and runs {runs or 'no bundle'}.{wrong}"


def machine_table(found: Diagnosis) -> Table:
    """This machine, and what can be measured on it."""
    rows = [("Python", found.python + ("" if found.python_fits else ": outside the range of this version"))]
    if found.machine is not None:
        sets = ", ".join(found.machine["instruction_sets"]) or "none that matter here"
        rows += [
            ("system", found.machine["system"]),
            ("processor", found.machine["processor"]),
            ("cores", str(found.machine["cores"])),
            ("instruction sets", sets),
            ("memory", f"{found.machine['memory_gib']:g} GiB"),
        ]
    gpus = (
        "not detected: no response of nvidia-smi" if found.gpus is None else "; ".join(found.gpus) or "none"
    )
    rows.append(("NVIDIA GPU", gpus))
    rows += [(f"bench: {what}", answer) for what, answer in found.measures.items()]
    rows += found.conditions.items()
    return Table("This machine", ("what", "value"), rows)


def library_table(found: Diagnosis) -> Table:
    """Each dependency with the version range that is required."""
    rows = [
        (lib.name, lib.installed or "–", lib.wanted or "any", lib.extra or "core", _state(lib))
        for lib in found.libraries
        if lib.extra != TESTS or lib.problem
    ]
    caption = "ok: imported here, and of a tested version; untested: imported, and of another version"
    return Table("Libraries", ("library", "installed", "required", "for", "state"), rows, caption=caption)


def bundle_table(fit: BundleFit) -> Table:
    """What a bundle requires, and whether this machine has it."""
    rows = [("bundle", fit.described), ("runs here on", fit.runs_here or "nothing")]
    rows += [
        (one.library, f"{one.lowest} or newer required, {one.installed or 'none'} installed")
        for one in fit.required
    ]
    rows += [("problem", problem) for problem in fit.problems]
    rows += [("warning", warning) for warning in fit.warnings]
    return Table(f"Bundle {fit.bundle}", ("what", "found"), rows, caption="its graphs were not loaded")


def _state(library: Library) -> str:
    return f"broken: {library.problem}" if library.problem else library.state


def target_table(found: Diagnosis) -> Table:
    """What each target of this version can do here."""
    rows = [
        (state.name, "yes" if state.export else "no", state.runs_here or "nothing", state.runs_on)
        for state in found.targets
    ]
    known = ", ".join(state.name for state in found.targets)
    caption = f"this version exports to: {known}. Libraries were imported; no model was exported or run"
    if not rows:
        caption = "unknown until the core libraries are installed"
    return Table("Targets", ("target", "can export", "runs here on", "made for"), rows, caption=caption)
