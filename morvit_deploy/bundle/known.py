"""What a manifest needs to know of its target. Targets are a floor above, so their registry calls `find_with`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from morvit_deploy.errors import TargetError
from morvit_deploy.model.answers.gates import Gate
from morvit_deploy.model.choices import Precision

if TYPE_CHECKING:
    from morvit_deploy.bundle.forms import TargetForm


class KnownTarget(Protocol):
    """What a manifest needs to know of its target."""

    def load_form(self) -> type[TargetForm]: ...
    @property
    def precisions(self) -> tuple[Precision, ...]: ...
    @property
    def gates(self) -> Mapping[str, Gate]: ...
    @property
    def integers(self) -> tuple[str, str]: ...
    def untested_here(self, written_with: Mapping[str, str]) -> tuple[str, ...]: ...


_find: list[Callable[[str], KnownTarget]] = []


def find_with(find: Callable[[str], KnownTarget]) -> None:
    """Register the function that finds a target by name or raises TargetError."""
    _find[:] = [find]


def known_target(name: str) -> KnownTarget:
    """The target called `name`; TargetError where there is none."""
    if not _find:
        raise TargetError(
            "no targets are registered; import morvit_deploy.exporters.targets before opening a bundle"
        )
    return _find[0](name)
