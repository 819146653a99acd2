"""Compares a library's version with the oldest release that will do. Python's own modules only."""

from __future__ import annotations

import re
import sys
from importlib import metadata

from morvit_deploy.agent.core.faults import Lacking

# distributions that bring the same module: installing the plain one beside them breaks both
VARIANTS = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml")}
NUMPY_2 = {"onnxruntime": "1.19"}  # the first release that can be imported beside numpy 2


def release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at the end; empty if there are none.

    `1.20.0.dev20260101`, `1.20rc1` and `1.20+cpu` are 1.20: a pre-release counts as its release.
    """
    numbers = re.match(r"\d+(\.\d+)*", version)
    found = [int(number) for number in numbers.group().split(".")] if numbers else []
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def is_older(version: str, lowest: str) -> bool:
    """Is a version older than the release `lowest`? A version without numbers counts as older."""
    return release(version) < release(lowest)


def check_release(library: str, version: str, lowest: str, what: str) -> None:
    """Lacking if the library is older than `what` requires, with the command that updates it."""
    if is_older(version, lowest):
        raise Lacking(
            f"{what} requires {library} {lowest} or newer, got {version}; run `{update_line(library, lowest)}`"
        )


def update_line(library: str, lowest: str) -> str:
    """The command that installs a release from `lowest` on, for the Python that runs this."""
    return f'{sys.executable or "python3"} -m pip install "{_distribution(library)}>={lowest}"'


def not_importable(library: str, error: ImportError) -> str:
    """Why a library cannot be imported, with what to do where the cause is known."""
    said = f"cannot import {library}: {str(error) or type(error).__name__}"
    version, numpy, first = installed(library), installed("numpy"), NUMPY_2.get(library)
    if (
        version is None
        or numpy is None
        or first is None
        or not is_older(version, first)
        or is_older(numpy, "2")
    ):
        return said
    return f"{said}; {library} {version} requires numpy below 2, got {numpy}: run `{update_line(library, first)}`"


def installed(library: str) -> str | None:
    """The installed version of a distribution, or of another one that brings the same module; or None."""
    for name in (library, *VARIANTS.get(library, ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _distribution(library: str) -> str:
    """The name under which a library is installed here."""
    return next((name for name in VARIANTS.get(library, ()) if installed(name)), library)
