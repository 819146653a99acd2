"""The library versions that packages were checked with."""

from __future__ import annotations

from morvit_deploy.machine.dependencies import within
from morvit_deploy.machine.this import versions

TESTED = {"coremltools": ">=9.0,<9.1", "torch": ">=2.13,<2.14"}


def untested() -> tuple[str, ...]:
    """A sentence for each installed library whose version is outside those that were tested."""
    return tuple(
        f"{name} {version} is outside what was tested ({TESTED[name]}); try the package on a device before it ships"
        for name, version in versions(tuple(TESTED)).items()
        if not within(version, TESTED[name])
    )
