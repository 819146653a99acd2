"""One TensorRT engine as a runner, as the agent runs it, with this package's errors. No torch."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from morvit_deploy.agent.trt import engine
from morvit_deploy.bundle.session import Arrays
from morvit_deploy.exporters.trt.driver import Cuda
from morvit_deploy.machine.agent_errors import own_errors


class TrtEngine(engine.TrtEngine):
    """A deserialised engine. BundleError when TensorRT does not take it, TargetError when it does not run it."""

    def __init__(self, trt: Any, cuda: Cuda, content: bytes, name: str, *, graph: bool) -> None:
        with own_errors():
            super().__init__(trt, cuda, content, name, graph=graph)

    def load(self, feeds: Arrays) -> list[NDArray[Any]]:
        with own_errors():
            return super().load(feeds)

    def enqueue(self) -> None:
        with own_errors():
            super().enqueue()
