"""Options as the fields of a frozen dataclass, which Python's keywords and the command line are derived from.

Light: `export --help` imports it.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, fields
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from morvit_deploy.errors import ConfigError
from morvit_deploy.keywords import did_you_mean
from morvit_deploy.model.choices import SYNONYMS

if TYPE_CHECKING:
    from morvit_deploy.exporters.request import Request

Own = TypeVar("Own", bound="TargetOptions")


@dataclass(frozen=True)
class Help:
    """How the command line shows an option, as in `Annotated[int, Help("…")]`."""

    text: str
    metavar: str | None = None
    least: float | None = None
    most: float | None = None
    show_default: bool = False


@dataclass(frozen=True)
class Option:
    """A field: its type without None, its values where they are few, and its help where it has one."""

    name: str
    kind: Any
    optional: bool
    choices: tuple[Any, ...]
    default: Any
    help: Help | None


@dataclass(frozen=True)
class TargetOptions:
    """Options of one target; this class itself for a target without any.

    A subclass is a frozen dataclass. Each field has a default, and a `Help` that the command line shows.
    """

    def __post_init__(self) -> None:
        """ConfigError for a value that is not one of an option's choices."""
        check_choices(self)

    @property
    def exact(self) -> bool:
        """Are the weights stored as they are?"""
        return True

    def check(self, request: Request) -> None:
        """ConfigError for a request that the target does not support."""

    @classmethod
    def of(cls: type[Own], request: Request) -> Own:
        """The options of a request for this target."""
        assert isinstance(request.options, cls), "`Request` has checked it"
        return request.options


def options_of(kind: type) -> tuple[Option, ...]:
    """The fields of a dataclass of options, in order."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(_option(field, hints[field.name]) for field in fields(kind))


def _option(field: Field[Any], hint: Any) -> Option:
    help = None
    if get_origin(hint) is Annotated:
        hint, *marks = get_args(hint)
        help = next((mark for mark in marks if isinstance(mark, Help)), None)
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind, *others = (one for one in kinds if one is not type(None))
    choices = get_args(kind) if get_origin(kind) is Literal and not others else ()
    default = None if field.default is MISSING else field.default
    return Option(field.name, kind, type(None) in kinds, choices, default, help)


def check_choices(options: Any) -> None:
    """ConfigError for a field whose value is not one of its type's literals."""
    for option in options_of(type(options)):
        value = getattr(options, option.name)
        if option.choices and value not in option.choices and not (value is None and option.optional):
            expected = ", ".join(map(str, option.choices))
            words = {word: name for word, name in SYNONYMS.items() if name in option.choices}
            hint = did_you_mean(value, option.choices, words)
            raise ConfigError(f"{option.name}: got {value!r}, expected one of {expected}{hint}")
