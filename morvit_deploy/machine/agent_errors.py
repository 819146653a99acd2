"""The agent's errors as this package's. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from morvit_deploy.agent.core.faults import AgentError, Refused
from morvit_deploy.errors import BundleError, TargetError


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise the agent's Refused as BundleError and its other errors as TargetError."""
    try:
        yield
    except Refused as error:
        raise BundleError(str(error)) from None
    except AgentError as error:
        raise TargetError(str(error)) from None
