"""The error tree. Every message states what was received, what was expected and what to do.

MorvitError                  exit status 2: bad usage or input
├── ConfigError              config.json breaks the format, or an option has no such value
├── PlanError                a plan or its statistics break the format or belong to another checkpoint or run
├── CheckpointError          weights are missing, foreign, mis-shaped or not finite
├── ImageError               an image or an image folder cannot be used
├── OutputError              the output cannot be written to the given place
├── BundleError              a bundle is damaged, altered or of another format
├── TargetError              a target, device or option is not available
├── LostError                exit status 1: a device could not be reached any more in the middle of its work
└── CheckFailed              exit status 1: the tool worked, and the check failed
    ├── StructureError       the written graph is not the static graph that was promised
    ├── ParityError          the bundle does not compute what the checkpoint computes
    └── PrecisionError       a bundle below fp32 misses its gate, or is not faster
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class MorvitError(Exception):
    """Root of every error this package raises on purpose."""

    exit_status = 2


class ConfigError(MorvitError):
    """A configuration breaks its format, or an option has a value that it cannot have."""


class PlanError(MorvitError):
    """A plan, or the statistics that it is made of, cannot be used."""


class CheckpointError(MorvitError):
    """A checkpoint cannot be loaded as it is."""


class ImageError(MorvitError):
    """An image cannot be read or does not suit the model."""


class OutputError(MorvitError):
    """An output cannot be written."""


class BundleError(MorvitError):
    """A bundle is damaged, altered or unknown."""


class TargetError(MorvitError):
    """A target, device or option is not available here."""


class LostError(MorvitError):
    """A device could not be reached any more in the middle of its work; `partial` is what was received before."""

    exit_status = 1
    partial: Any = None


class CheckFailed(MorvitError):
    """A check ran to its end and failed."""

    exit_status = 1


class StructureError(CheckFailed):
    """The written graph breaks a promise about its structure."""


class ParityError(CheckFailed):
    """The bundle and the checkpoint disagree."""


class PrecisionError(CheckFailed):
    """A bundle below fp32 is not worth having: it misses its gate, or is not faster than fp32."""


def did_you_mean(word: str, choices: Iterable[str] | Mapping[str, str]) -> str:
    """ "did you mean onnx?" for the choice closest to a misspelt `word`; empty where none is close.

    A mapping gives further words for a choice: {"tensorrt": "trt"}.
    """
    meant = choices if isinstance(choices, Mapping) else {choice: choice for choice in choices}
    folded = {name.lower(): choice for name, choice in meant.items()}
    close = difflib.get_close_matches(word.lower(), folded, n=1)
    return f"did you mean {folded[close[0]]}?" if close else ""
