"""Errors of the agent: what was received, what was expected and what to do, as in the rest of the package."""

from __future__ import annotations


class AgentError(Exception):
    """Something failed on the device; `kind` selects the error that the local side raises."""

    kind = "failed"


class Refused(AgentError):
    """A bundle's files or engines are missing, damaged, or cannot be loaded by the runtime."""

    kind = "refused"


class Lacking(AgentError):
    """The device lacks a library, a version, or room on its disk."""

    kind = "lacking"
