"""What a target's own options have in common. Light: `export --help` imports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from morvit_deploy.exporters.request import Request

Own = TypeVar("Own", bound="TargetOptions")


@dataclass(frozen=True)
class Help:
    """Metadata of a field, as `Annotated[int, Help("…")]`: how the command line shows the option of that name."""

    text: str
    metavar: str | None = None
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class TargetOptions:
    """Options that only one target has; of a target without any, this class itself.

    A subclass is a frozen dataclass. Each field has a default, and a `Help` that the command line shows.
    """

    def check(self, request: Request) -> None:
        """ConfigError for a request that the target cannot carry out."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Python's keywords; on the command line `_` is `-`."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def of(cls: type[Own], given: Mapping[str, object]) -> Own:
        """The options for these keywords, which `names` lists."""
        return cls(**given)
