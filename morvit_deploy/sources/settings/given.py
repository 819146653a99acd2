"""Settings that affect logits but are not in the files: they must be given explicitly. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from morvit_deploy.errors import ConfigError
from morvit_deploy.keywords import did_you_mean
from morvit_deploy.model.config import Preprocess

ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
GATES = ("block", "delta", "hard")
SELECTIONS = ("flat", "nested")
SHARINGS = ("none", "cycle", "middle_cycle")
_CHOICES = {"activation": ACTIVATIONS, "gate": GATES, "selection": SELECTIONS, "sharing": SHARINGS}
_POSITIVE = ("norm_eps", "num_heads", "dora_alpha", "image_size", "cycle_depth")


@dataclass(frozen=True)
class Given:
    """Settings that the user gives since the files do not hold them; None: not given.

    `preprocess` is a preset's name, a JSON file or a Preprocess; `capacity` counts tokens that run each step;
    `sharing` and `cycle_depth` state how unrolled layers are tied, which is then proved.
    """

    family: str | None = None
    ema: bool = True
    preprocess: str | Path | Preprocess | None = None
    norm_eps: float | None = None
    num_heads: int | None = None
    activation: str | None = None
    gate: str | None = None
    alpha: float | None = None
    selection: str | None = None
    capacity: tuple[int, ...] | None = None
    dora_alpha: float | None = None
    image_size: int | None = None
    sharing: str | None = None
    cycle_depth: int | None = None

    def __post_init__(self) -> None:
        """ConfigError for a value that no model can have."""
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                hint = did_you_mean(value, allowed)
                raise ConfigError(
                    f"{option(name)}: got {value!r}, expected one of {', '.join(allowed)}{hint}"
                )
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{option(name)}: got {value}, expected a number above 0")
        if self.capacity is not None:  # a list, from Python, compares as the numbers it holds
            object.__setattr__(self, "capacity", tuple(self.capacity))

    def said(self) -> dict[str, Any]:
        """Everything that was given, by name."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("family", "ema")}
        return {name: value for name, value in given.items() if value is not None}


class Settings(TypedDict, total=False):
    """The fields of `Given`, as keywords of a function."""

    family: str | None
    ema: bool
    preprocess: str | Path | Preprocess | None
    norm_eps: float | None
    num_heads: int | None
    activation: str | None
    gate: str | None
    alpha: float | None
    selection: str | None
    capacity: tuple[int, ...] | None
    dora_alpha: float | None
    image_size: int | None
    sharing: str | None
    cycle_depth: int | None


@dataclass(frozen=True)
class Settled:
    """One value that changes logits, and where it was read."""

    value: Any
    origin: str  # "config.json", "the tensors", "--norm-eps"


@dataclass
class Questions:
    """Settles one value after the other from files or the command line, and collects what neither has."""

    given: Given
    settled: dict[str, Settled] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # option -> the family's published value, in words
    example: dict[str, str] = field(default_factory=dict)  # option -> the same as an argument
    conflicts: list[str] = field(default_factory=list)

    def settle(
        self, name: str, *, stored: Any = None, origin: str = "config.json", published: str, example: str = ""
    ) -> Any:
        """The value called `name`: from the file or from the user; an error if they differ.

        None when neither has it: then `close` requires it, with the family's `published` value beside it.
        """
        said = getattr(self.given, name)
        if stored is None and said is None:
            self.ask(name, published, example)
            return None
        if stored is not None and said is not None and said != stored:
            self.conflicts.append(f"{option(name)}: got {said}, but {origin} says {stored}; leave it out")
        self.settled[name] = (
            Settled(stored, origin) if stored is not None else Settled(said, f"command line, {option(name)}")
        )
        return self.settled[name].value

    def ask(self, name: str, published: str, example: str = "") -> None:
        """Put a value on the list of what is missing."""
        self.missing[option(name)] = published
        self.example[option(name)] = example or published

    def note(self, name: str, value: Any, origin: str) -> None:
        """Record a value that was derived, and that `given` took part in."""
        self.settled[name] = Settled(value, origin)

    def close(self, source: Path, title: str) -> None:
        """ConfigError with everything that is missing, contradicts itself or has no effect."""
        unused = [option(name) for name in self.given.said() if name not in self.settled]
        problems = [*self.conflicts, *(f"{name}: says nothing about this checkpoint" for name in unused)]
        if problems:
            listed = "\n".join(f"  - {problem}" for problem in problems)
            raise ConfigError(f"{source} is {title}; these options do not fit it:\n{listed}")
        if self.missing:
            listed = "\n".join(
                f"  {name:<13} published: {published}" for name, published in self.missing.items()
            )
            line = " ".join(f"{name} {value}" for name, value in self.example.items())
            raise ConfigError(
                f"{source} is {title}, and its files do not say what changes its answers. Say it as it was "
                f"trained:\n{listed}\nwith the published values: {line}"
            )


def option(name: str) -> str:
    """The command line's word for a field."""
    return "--" + name.replace("_", "-")
