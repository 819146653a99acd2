"""Imports coremltools on first use, and silences its warnings about versions and platforms.

Imports the standard library alone: benchmark projects carry this file.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TypeAlias

# coremltools ships no types: a name for each kind of object that we take from it
Message: TypeAlias = Any  # a protobuf message of coremltools.proto
Model: TypeAlias = Any  # a coremltools.models.MLModel

INSTALL = 'python -m pip install "coremltools>=9.0,<10"'


def coremltools() -> Any:
    """The module."""
    with quiet():
        import coremltools as ct
    return ct


@contextmanager
def quiet() -> Iterator[None]:
    """Let only errors through while the block runs.

    coremltools warns about library versions newer than those it was tested with and, outside macOS, about missing
    bridges, and draws progress bars.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
