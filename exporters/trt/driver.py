"""The GPU as the agent reaches it, with this package's errors. No torch."""

from __future__ import annotations

from typing import Any

from morvit_deploy.agent.trt import driver as cuda_driver
from morvit_deploy.machine.agent_errors import own_errors


class Cuda(cuda_driver.Cuda):
    """The first GPU. TargetError when the driver is missing, or a call fails."""

    def __init__(self) -> None:
        with own_errors():
            super().__init__()

    def _call(self, name: str, *arguments: Any) -> None:
        with own_errors():
            super()._call(name, *arguments)
