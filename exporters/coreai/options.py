"""Options of target `coreai`. No torch, no Core AI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from morvit_deploy.exporters.coreai.names import Weights
from morvit_deploy.exporters.functions.rules import check_functions
from morvit_deploy.exporters.options import Help, TargetOptions
from morvit_deploy.model.choices import Select

if TYPE_CHECKING:
    from morvit_deploy.exporters.request import Request


@dataclass(frozen=True)
class CoreaiOptions(TargetOptions):
    """Options of target `coreai`."""

    select: Annotated[
        Select,
        Help(
            "topk: tokens are gathered by index (default); onehot: ranked by comparisons and selected by a matrix "
            "product, without topk or gather."
        ),
    ] = "topk"
    weights: Annotated[
        Weights, Help("How weights are stored; arithmetic stays in --precision (default: float).")
    ] = "float"

    @property
    def exact(self) -> bool:
        return self.weights == "float"

    def check(self, request: Request) -> None:
        check_functions(request, "a Core AI asset", "the app or MoRViTKit")
