"""The agent's GPU and TensorRT engine with this package's errors. No torch."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.agent.trt import driver, engine
from morvit_deploy.errors import TargetError
from morvit_deploy.machine.agent_errors import own_errors


class Cuda(driver.Cuda):
    """The first GPU. TargetError when the driver is missing or a call fails."""

    failure = TargetError

    def __init__(self) -> None:
        with own_errors():
            super().__init__()


class TrtEngine(engine.TrtEngine):
    """A deserialised engine. BundleError when TensorRT cannot load it, TargetError when it cannot run it."""

    needs_capture = False

    def __init__(
        self, trt: Any, cuda: Cuda, content: bytes, name: str, *, graph: bool, host_code: bool = False
    ) -> None:
        with own_errors():
            super().__init__(trt, cuda, content, name, graph=graph, host_code=host_code)

    def load(self, feeds: Arrays) -> list[NDArray[Any]]:
        with own_errors():
            return super().load(feeds)

    def enqueue(self) -> None:
        with own_errors():
            super().enqueue()
