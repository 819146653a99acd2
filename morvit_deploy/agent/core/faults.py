"""Errors of the agent: what was received, what was expected and what to do, as in the rest of the package."""

from __future__ import annotations


class AgentError(Exception):
    """Something on the device does not work; `kind` names the error that the local side raises."""

    kind = "failed"


class Refused(AgentError):
    """A bundle's files are not as they were sent, or the runtime does not take them."""

    kind = "refused"


class Lacking(AgentError):
    """The device lacks a library, a version, or room on its disk."""

    kind = "lacking"
