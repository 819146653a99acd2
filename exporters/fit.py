"""Whether this machine can run a bundle: its runtime, the runtime's version, and its kernels. Loads no graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from morvit_deploy.agent.core.releases import is_older, update_line
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.bundle.session import warnings_here
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.machine import dependencies
from morvit_deploy.machine.extras import install_line


@dataclass(frozen=True)
class Required:
    """A library that a bundle requires, and the version that is installed."""

    library: str
    lowest: str  # oldest release that runs the bundle
    installed: str | None

    @property
    def problem(self) -> str | None:
        """What is wrong, with the command that mends it; None if nothing is."""
        if self.installed is not None and not is_older(self.installed, self.lowest):
            return None
        found = f"got {self.installed}" if self.installed else "it is not installed"
        line = update_line(self.library, self.lowest)
        return f"requires {self.library} {self.lowest} or newer, {found}; run `{line}`"


@dataclass(frozen=True)
class BundleFit:
    """Whether a bundle runs here, and what reduces the quality of its results."""

    bundle: str
    target: str
    described: str
    required: tuple[Required, ...]
    warnings: tuple[str, ...]
    runs_here: str = ""  # what runs it; "" if nothing does

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it does not run here; empty if it does."""
        found = [one.problem for one in self.required if one.problem]
        if not self.runs_here and not found:
            extra = find_target(self.target).needs.extra
            found = [f"nothing here runs target {self.target}; run `{install_line(extra)}`"]
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """As `doctor BUNDLE --json` prints it."""
        return {**asdict(self), "problems": list(self.problems)}

    def with_runtime(self, runs_here: Mapping[str, str]) -> BundleFit:
        """The same with what runs each target here."""
        return replace(self, runs_here=runs_here.get(self.target, ""))


def fit_here(bundle: str | Path) -> BundleFit:
    """Check a bundle's files, and what it requires against this machine.

    Raises BundleError for a bundle that is damaged or was edited.
    """
    folder = Path(bundle)
    manifest = open_manifest(folder)
    needs = find_target(manifest.target).required_by(folder, manifest)
    return BundleFit(
        str(bundle),
        manifest.target,
        manifest.described,
        tuple(
            Required(library, lowest, dependencies.installed(library)) for library, lowest in needs.items()
        ),
        warnings_here(manifest),
    )
