"""What this package requires, from its own metadata, and what is installed. Imports no dependency but packaging."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

from morvit_deploy.agent.core.releases import installed as installed
from morvit_deploy.errors import TargetError
from morvit_deploy.machine.extras import PACKAGE, install_line

WITH_ALL_WHEELS = {
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}  # where no marker excludes a library


@dataclass(frozen=True)
class Library:
    """One dependency: what this version requires, and what is installed."""

    name: str
    wanted: str  # version range that this version requires
    extra: str  # "" for a core dependency, else the optional group it belongs to
    installed: str | None
    fits: bool
    problem: str | None = None  # why it cannot be imported, "" if it can; None: it was not tried
    by_pip: bool = True  # does its extra install it on this machine?

    @property
    def state(self) -> str:
        """One word for a table."""
        if self.installed is None:
            return "missing"
        if self.problem:
            return "broken"
        return "untested" if not self.fits else "installed" if self.problem is None else "ok"

    @property
    def works(self) -> bool:
        """Whether it is installed and could be imported."""
        return self.installed is not None and not self.problem


def own() -> importlib.metadata.Distribution:
    """This package's metadata; TargetError when it is not installed."""
    try:
        return importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise TargetError(
            f"{PACKAGE} is not installed in this Python; run `pip install .` in its folder"
        ) from None


def libraries() -> Iterator[Library]:
    """The package's own requirements, core first; an extra that another includes once.

    Those that do not apply on this machine are left out, unless they are there: a Jetson has TensorRT without pip.
    """
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        raise TargetError(
            f"packaging is not installed; run `{install_line('')}`, then doctor again"
        ) from None
    package = own()
    extras = package.metadata.get_all("Provides-Extra") or []
    wanted = [known for line in package.requires or [] if (known := Requirement(line)).name != PACKAGE]
    for extra in ("", *extras):
        for requirement in wanted:
            marker = requirement.marker
            optional = marker is not None and not marker.evaluate({"extra": ""})
            here = marker is None or marker.evaluate({"extra": extra})
            version = installed(requirement.name)
            brought = version is not None and (
                marker is None or marker.evaluate({"extra": extra, **WITH_ALL_WHEELS})
            )
            if optional == bool(extra) and (here or brought):
                ranges = ",".join(sorted(map(str, requirement.specifier), reverse=True))  # lower bound first
                fits = version is not None and within(version, ranges)
                yield Library(requirement.name, ranges, extra, version, fits, by_pip=here)


def within(version: str, ranges: str) -> bool:
    """Is a version in a range such as `>=2.9,<2.14`?"""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(ranges).contains(version, prereleases=True)  # a nightly build counts as its version
