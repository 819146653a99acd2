"""The error tree. Every message states what was received, what was expected and what to do.

MorvitError                  exit status 2: bad usage or input
├── ConfigError              config.json breaks the format, or an option has no such value
│   └── KeywordError         a Python function has no such keyword; also a TypeError
├── PlanError                a plan or its statistics break the format or belong to another checkpoint or run
├── CheckpointError          weights are missing, foreign, mis-shaped or not finite
├── ImageError               an image or an image folder cannot be used
├── OutputError              the output cannot be written to the given place
├── BundleError              a bundle is damaged, altered or of another format
├── TargetError              a target, device or option is not available
│   └── MissingExtraError    an optional library is not installed; also a ModuleNotFoundError
├── LostError                exit status 1: the connection to a device was lost during its work
└── CheckFailed              exit status 1: a check ran and failed
    ├── AnswerError          a runtime or a model returned NaN or infinite numbers
    ├── IncompleteError      some images of many have no prediction; also an ImageError
    ├── StructureError       the written graph differs from the static graph
    ├── ParityError          the bundle does not compute what the checkpoint computes
    ├── PrecisionError       a bundle below fp32 misses its gate, or is not faster
    └── AccuracyError        a plan ruins the model

MorvitWarning                a UserWarning: an opened bundle may answer worse than where it was exported
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class MorvitError(Exception):
    """Root of every error this package raises on purpose."""

    exit_status = 2


class ConfigError(MorvitError):
    """A configuration breaks its format, or an option has a value that it cannot have."""


class KeywordError(ConfigError, TypeError):
    """A function of this package does not have the keyword that it was given."""


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


class MissingExtraError(TargetError, ModuleNotFoundError):
    """A library that one of this package's extras installs is missing; `name` is its module."""


class LostError(MorvitError):
    """The connection to a device was lost during its work; `partial` is what was received before."""

    exit_status = 1
    partial: Any = None


class CheckFailed(MorvitError):
    """A check ran to its end and failed."""

    exit_status = 1


class AnswerError(CheckFailed):
    """A runtime or a model returned numbers that are NaN or infinite."""


class IncompleteError(CheckFailed, ImageError):
    """Some images could not be classified; `partial` holds the predictions of the others."""

    partial: Any = None


class StructureError(CheckFailed):
    """The written graph breaks a promise about its structure."""


class ParityError(CheckFailed):
    """The bundle and the checkpoint disagree."""


class PrecisionError(CheckFailed):
    """A bundle below fp32 misses its accuracy gate, or is not faster than fp32."""


class AccuracyError(CheckFailed):
    """A plan surely keeps less than nine tenths of the trained model's accuracy."""


class MorvitWarning(UserWarning):
    """An opened bundle may answer worse here than where it was exported; the message has the reason."""


def listed(problems: Sequence[str], most: int | None = None) -> str:
    """Return problems as lines of a message, at most `most` of them, followed by the number of those omitted."""
    lines = [f"  - {problem}" for problem in problems[:most]]
    return "\n".join(
        [*lines, f"  - and {len(problems) - most} more"] if most and len(problems) > most else lines
    )
