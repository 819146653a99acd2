"""coremltools, loaded when it is used and without its remarks about what is no concern of ours."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from morvit_deploy.errors import TargetError

INSTALL = 'python -m pip install "coremltools>=9.0,<10"'
TESTED = {"coremltools": ">=9.0,<9.1", "torch": ">=2.13,<2.14"}  # what a package's answers were checked with


def coremltools() -> Any:
    """The module; TargetError with the line that installs it."""
    try:
        with quiet():
            import coremltools as ct
    except ModuleNotFoundError as error:
        if error.name != "coremltools":
            raise
        raise TargetError(f"target coreml needs coremltools, which is not installed; run `{INSTALL}`") from None
    return ct


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors, and none of its warnings, while the block runs.

    It warns of every library version that is not the newest it knew, and off macOS of the bridges it has not.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
