"""The GPU as the agent reaches it, with this package's errors. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from morvit_deploy.agent.core.faults import AgentError, Refused
from morvit_deploy.agent.trt import driver as cuda_driver
from morvit_deploy.errors import BundleError, TargetError


@contextmanager
def own_errors() -> Iterator[None]:
    """What the agent refuses as a BundleError; anything else that does not work there as a TargetError."""
    try:
        yield
    except Refused as error:
        raise BundleError(str(error)) from None
    except AgentError as error:
        raise TargetError(str(error)) from None


class Cuda(cuda_driver.Cuda):
    """The first GPU. TargetError when the driver is missing, or a call fails."""

    def __init__(self) -> None:
        with own_errors():
            super().__init__()

    def _call(self, name: str, *arguments: Any) -> None:
        with own_errors():
            super()._call(name, *arguments)
