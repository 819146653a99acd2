"""The manifest entry of a target whose model an app loads with MoRViTKit. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from morvit_deploy.bundle.forms import TargetForm
from morvit_deploy.exporters.functions.rules import function_problems

if TYPE_CHECKING:
    from morvit_deploy.bundle.manifest import Manifest

Runtime = Literal["coreml", "coreai"]  # as `ModelDescription.swift` decodes it
DEFAULT_RUNTIME: Runtime = "coreml"  # of a description that names none


class AppForm(TargetForm):
    """A file of functions that an app loads: `stem` and one for each bucket, in order; or the only one, `main`."""

    runtime: ClassVar[Runtime]
    file: ClassVar[str]  # name of the model in the bundle

    weights: str  # how they are stored
    functions: Annotated[tuple[str, ...], Field(min_length=1)]

    @property
    def oldest_ios(self) -> int:
        """The oldest iOS that loads the model."""
        raise NotImplementedError

    @property
    def exact(self) -> bool:
        return self.weights == "float"

    def problems(self, manifest: Manifest) -> list[str]:
        return function_problems(self.functions, manifest)
