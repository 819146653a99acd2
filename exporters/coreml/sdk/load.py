"""coremltools, loaded when it is used and without its remarks about what is no concern of ours.

The standard library and `errors` alone: benchmark projects carry this file.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

from morvit_deploy.errors import TargetError

INSTALL = 'python -m pip install "coremltools>=9.0,<10"'


def coremltools() -> Any:
    """The module; TargetError with the line that installs it."""
    try:
        with quiet():
            import coremltools as ct
    except ModuleNotFoundError as error:
        if error.name != "coremltools":
            raise
        raise TargetError(
            f"target coreml needs coremltools, which is not installed; run `{INSTALL}`"
        ) from None
    return ct


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors, and none of its warnings, while the block runs.

    It warns of every library version that is not the newest it knew, off macOS of the bridges it has not, and draws
    progress bars of its own.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def mil_name(name: str) -> str:
    """A value's name inside a package: Core ML takes no dots."""
    return name.replace(".", "_")
