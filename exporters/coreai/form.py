"""A Core AI asset's manifest entry. No torch, no Core AI."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from morvit_deploy.exporters.coreai.names import ASSET, OLDEST_IOS, Weights
from morvit_deploy.exporters.kit.form import AppForm, Runtime
from morvit_deploy.model.choices import Select


class CoreaiForm(AppForm):
    """The asset's form. `inside` maps a function and a probe to the value of the program that `verify` compares."""

    runtime: ClassVar[Runtime] = "coreai"
    file: ClassVar[str] = ASSET

    select: Select
    weights: Weights = "float"
    inside: dict[str, dict[str, Annotated[str, Field(pattern=r"^%\w+(#\d+)?$")]]] = Field(
        default_factory=dict
    )

    @property
    def oldest_ios(self) -> int:
        return OLDEST_IOS
