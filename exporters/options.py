"""Options as the fields of a frozen dataclass, which Python's keywords and the command line are derived from.

Light: `export --help` imports it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
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

if TYPE_CHECKING:
    from morvit_deploy.exporters.request import Request

LARGEST_SEED = 2**63 - 1  # that every random generator takes
MOST = 2**31 - 1  # of a count without a limit of its own: what C libraries hold; more is a typing error

Own = TypeVar("Own", bound="TargetOptions")


@dataclass(frozen=True)
class Help:
    """How the command line shows an option, as in `Annotated[int, Help("…")]`."""

    text: str
    metavar: str | None = None
    least: float | None = None
    most: float | None = None
    show_default: bool = False
    panel: str | None = None  # heading it stands under in `--help`
    short: str | None = None  # as "-o"
    also: Mapping[str, str] = field(default_factory=dict)  # other words for a choice, to suggest it


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

    @property
    def any_output(self) -> bool:
        """Are they judged without classes, so that a graph may return features?"""
        return True

    @property
    def remedy(self) -> str:
        """What to do if these options make a bundle miss its gate; "" if they do not."""
        return ""

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
    return tuple(
        option_of(one.name, hints[one.name], None if one.default is MISSING else one.default)
        for one in fields(kind)
    )


def option_of(name: str, hint: Any, default: Any) -> Option:
    """The option of a field, or of a parameter, with this type hint."""
    help = None
    if get_origin(hint) is Annotated:
        hint, *marks = get_args(hint)
        help = next((mark for mark in marks if isinstance(mark, Help)), None)
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind, *others = (one for one in kinds if one is not type(None))
    choices = get_args(kind) if get_origin(kind) is Literal and not others else ()
    return Option(name, kind, type(None) in kinds, choices, default, help)


def check_choices(options: Any) -> None:
    """ConfigError for a field whose value is not one of its type's literals."""
    for option in options_of(type(options)):
        check_choice(option, getattr(options, option.name))


def check_choice(option: Option, value: Any) -> None:
    """ConfigError for a value that is none of the option's; it suggests the closest one."""
    if not option.choices or value in option.choices or (value is None and option.optional):
        return
    expected = ", ".join(map(str, option.choices))
    hint = did_you_mean(value, option.choices, option.help.also if option.help else {})
    raise ConfigError(f"{option.name}: got {value!r}, expected one of {expected}{hint}")


def check_number(option: Option, value: Any) -> None:
    """ConfigError for a number beyond the option's limits, and for NaN and infinity."""
    if type(value) not in (int, float):
        return
    least, most = (option.help.least, option.help.most) if option.help else (None, None)
    if isinstance(value, int):
        least, most = -MOST - 1 if least is None else least, MOST if most is None else most
    elif not math.isfinite(value):
        raise ConfigError(f"{option.name}: got {value}, expected a finite number")
    if least is not None and value < least:
        raise ConfigError(f"{option.name}: got {value}, expected at least {least}")
    if most is not None and value > most:
        raise ConfigError(f"{option.name}: got {value}, expected at most {most}")
