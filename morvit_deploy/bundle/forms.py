"""A target's own entry of the manifest. No torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from morvit_deploy.bundle.known import known_target
from morvit_deploy.errors import BundleError
from morvit_deploy.strict_fields import Strict, explain

if TYPE_CHECKING:
    from morvit_deploy.bundle.manifest import Manifest

Form = TypeVar("Form", bound="TargetForm")


class TargetForm(Strict):
    """A target's own entry in the manifest; this class itself for a target without one."""

    @property
    def exact(self) -> bool:
        """Are the stored weights those of the checkpoint?"""
        return True

    @property
    def said(self) -> str:
        """What a table says of the target beside its name."""
        return ""

    def problems(self, manifest: Manifest) -> list[str]:
        """What in the manifest contradicts this entry."""
        return []

    @classmethod
    def of(cls: type[Form], manifest: Manifest) -> Form:
        """The entry of a manifest of this target; BundleError for another's."""
        if not isinstance(manifest.target_form, cls):
            raise BundleError(f"got a bundle of target {manifest.target!r}, which has no {cls.__name__}")
        return manifest.target_form


def read_form(name: str, given: object, *, as_json: bool) -> TargetForm:
    """The entry of the target called `name`; ValueError names each field that is wrong."""
    kind = known_target(name).load_form()
    if isinstance(given, kind):
        return given
    try:
        # strict models accept a list for a tuple only in JSON text
        return kind.model_validate_json(json.dumps(given)) if as_json else kind.model_validate(given)
    except ValidationError as error:
        found = (line.removeprefix("  - ") for line in explain(error).splitlines())
        raise ValueError("\n".join(f"target_form.{line}" for line in found)) from None
