"""coremltools as exporters use it: quiet, and with a word about versions that were not tested."""

from __future__ import annotations

from morvit_deploy.exporters.coreml.sdk.load import INSTALL, coremltools, mil_name, quiet
from morvit_deploy.machine.dependencies import within
from morvit_deploy.machine.this import versions

__all__ = ["INSTALL", "TESTED", "coremltools", "mil_name", "quiet", "untested"]

TESTED = {"coremltools": ">=9.0,<9.1", "torch": ">=2.13,<2.14"}  # what a package's answers were checked with


def untested() -> tuple[str, ...]:
    """A sentence for each library whose version no package was checked with."""
    return tuple(
        f"{name} {version} is outside what was tested ({TESTED[name]}); try the package on a device before it ships"
        for name, version in versions(tuple(TESTED)).items()
        if not within(version, TESTED[name])
    )
