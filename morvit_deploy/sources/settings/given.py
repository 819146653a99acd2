"""Settings that affect logits but are not stored in the checkpoint: they must be given explicitly. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from morvit_deploy.errors import ConfigError, listed
from morvit_deploy.keywords import did_you_mean
from morvit_deploy.model.config import Preprocess

_CHOICES = {
    "activation": ("gelu", "gelu_tanh", "relu"),
    "gate": ("block", "delta", "hard"),
    "selection": ("flat", "nested"),
    "sharing": ("none", "cycle", "middle_cycle"),
}
_WHICH = (
    "family",
    "ema",
    "entry",
    "prefix",
)  # which tensors, and how they are named: not settings of the model
_POSITIVE = ("norm_eps", "num_heads", "dora_alpha", "image_size", "cycle_depth")


@dataclass(frozen=True)
class Given:
    """Settings given by the user for what the files do not contain; None: not given.

    `preprocess` is the name of a preset, a JSON file or a Preprocess. `capacity` is the number of tokens that run
    each step. `sharing` and `cycle_depth` state how unrolled layers are tied, which is then verified. `entry` is the
    state dict to use in a training file, and `prefix` the module inside it.
    """

    family: str | None = None
    ema: bool = True
    entry: str | None = None
    prefix: str | None = None
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
        if self.entry is not None and not self.ema:
            raise ConfigError(f"--entry {self.entry} names the weights, so leave out --no-ema")
        for name in ("entry", "prefix"):
            if getattr(self, name) == "":
                raise ConfigError(f"{option(name)}: got an empty name; leave it out to use all weights")
        if self.capacity is not None:  # Python callers may pass a list
            object.__setattr__(self, "capacity", tuple(self.capacity))

    def values(self) -> dict[str, Any]:
        """Return the settings that were given, by name."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _WHICH}
        return {name: value for name, value in given.items() if value is not None}


class Settings(TypedDict, total=False):
    """The fields of `Given` as keyword arguments."""

    family: str | None
    ema: bool
    entry: str | None
    prefix: str | None
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
    """A setting that affects logits, and where it was read."""

    value: Any
    origin: str  # "config.json", "the tensors", "--norm-eps"


@dataclass
class Questions:
    """Takes settings from the files or the command line, and collects those that neither contains."""

    given: Given
    settled: dict[str, Settled] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # option -> the family's published value, as text
    example: dict[str, str] = field(default_factory=dict)  # option -> an example argument
    conflicts: list[str] = field(default_factory=list)

    def settle(
        self, name: str, *, stored: Any = None, origin: str = "config.json", published: str, example: str = ""
    ) -> Any:
        """Return a setting from the file or from the user; different values are a conflict.

        Returns None if neither has it. `close` then reports it as missing, with the family's `published` value.
        """
        given = getattr(self.given, name)
        if stored is None and given is None:
            self.require(name, published, example)
            return None
        if stored is not None and given is not None and given != stored:
            self.conflicts.append(
                f"{option(name)}: got {given}, expected {stored} as in {origin}; omit the option"
            )
        self.settled[name] = (
            Settled(stored, origin) if stored is not None else Settled(given, f"command line, {option(name)}")
        )
        return self.settled[name].value

    def require(self, name: str, published: str, example: str = "") -> None:
        """Record a setting as missing."""
        self.missing[option(name)] = published
        self.example[option(name)] = example or published

    def note(self, name: str, value: Any, origin: str) -> None:
        """Record the value of a setting, and where it was read."""
        self.settled[name] = Settled(value, origin)

    def close(self, source: Path, title: str) -> None:
        """Raise ConfigError if settings are missing, in conflict or without effect."""
        unused = [option(name) for name in self.given.values() if name not in self.settled]
        problems = [*self.conflicts, *(f"{name}: has no effect on this checkpoint" for name in unused)]
        if problems:
            raise ConfigError(f"{source} is {title}; these options do not fit it:\n{listed(problems)}")
        if self.missing:
            lines = "\n".join(
                f"  {name:<13} published: {published}" for name, published in self.missing.items()
            )
            line = " ".join(f"{name} {value}" for name, value in self.example.items())
            raise ConfigError(
                f"{source} is {title}. These settings affect its logits but are not stored in its files; give them "
                f"as they were in training:\n{lines}\nwith the published values: {line}"
            )


def option(name: str) -> str:
    """Return the command-line option of a field."""
    return "--" + name.replace("_", "-")
