"""A Core AI asset's manifest entry. No torch, no Core AI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from morvit_deploy.bundle.forms import TargetForm
from morvit_deploy.exporters.coreai.names import Weights
from morvit_deploy.exporters.functions.rules import function_problems
from morvit_deploy.model.choices import Select

if TYPE_CHECKING:
    from morvit_deploy.bundle.manifest import Manifest


class CoreaiForm(TargetForm):
    """The asset's form. `functions` are in order: `stem` and one for each bucket; or the only one, `main`.

    `inside` maps a function and a probe to the value of the program that `verify` compares.
    """

    select: Select
    weights: Weights = "float"
    functions: Annotated[tuple[str, ...], Field(min_length=1)]
    inside: dict[str, dict[str, Annotated[str, Field(pattern=r"^%\w+(#\d+)?$")]]] = Field(
        default_factory=dict
    )

    @property
    def exact(self) -> bool:
        return self.weights == "float"

    def problems(self, manifest: Manifest) -> list[str]:
        return function_problems(self.functions, manifest)
