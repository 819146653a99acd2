"""Settings that affect logits but are not stored in the checkpoint: they must be given explicitly. No torch."""

from __future__ import annotations

import re
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
    "pooling": ("cls", "mean", "mean_norm"),
    "head_activation": ("softmax", "sigmoid", "none"),
    "dropped": ("fused", "gone"),
}
# which tensors, and how they are named: not settings of the model
_WHICH = ("family", "ema", "entry", "prefix")
_POSITIVE = ("keep_rate", "norm_eps", "num_heads", "dora_alpha", "patch_stride", "cycle_depth")
_SIZES = ("image_size", "trained_size")
MAX_EDGE = 16384  # pixels; a larger size is a typing error

ImageSize = int | str | tuple[int, int]  # an image size: N, "N", "HxW" or (height, width)


@dataclass(frozen=True)
class Given:
    """Settings given by the user for what the files do not contain; None: not given.

    `preprocess` is the name of a preset, a JSON file or a Preprocess. `capacity` is the number of tokens that run
    each step. Of models that drop tokens, `keep_rate` is the fraction that goes on, `drop_layers` are the layers,
    from 0, at which tokens leave, and `dropped` says what becomes of them, fused or gone. `sharing` and `cycle_depth`
    state how unrolled layers are tied, which is then verified. Sizes are N or "HxW" in pixels; `trained_size` is that
    of training, if it differs from `image_size`. `entry` is the state dict
    to use in a training file, and `prefix` the module inside it.
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
    keep_rate: float | None = None
    drop_layers: tuple[int, ...] | None = None
    dropped: str | None = None
    dora_alpha: float | None = None
    image_size: ImageSize | None = None
    trained_size: ImageSize | None = None
    patch_stride: int | None = None
    pooling: str | None = None
    head_activation: str | None = None
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
        for name in _SIZES:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _size(option(name), value))
        for name in ("capacity", "drop_layers"):  # Python callers may pass a list
            if (numbers := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(numbers))

    def edges(self, name: str) -> tuple[int, int] | None:
        """Return `image_size` or `trained_size` as (height, width)."""
        value = getattr(self, name)
        return (value, value) if isinstance(value, int) else value

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
    keep_rate: float | None
    drop_layers: tuple[int, ...] | None
    dropped: str | None
    dora_alpha: float | None
    image_size: ImageSize | None
    trained_size: ImageSize | None
    patch_stride: int | None
    pooling: str | None
    head_activation: str | None
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
    missing: dict[str, str] = field(default_factory=dict)  # option -> what the family publishes, or what fits
    example: dict[str, str] = field(default_factory=dict)  # option -> an example argument
    conflicts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # given values that depart from the published ones

    def settle(
        self,
        name: str,
        *,
        stored: Any = None,
        origin: str = "config.json",
        published: str,
        example: str = "",
        usual: Any = None,
    ) -> Any:
        """Return a setting from the file or from the user; different values are a conflict.

        Returns None if neither has it. `close` then reports it as missing, with the family's `published` value and an
        `example` argument. A given value other than `usual`, the published one, adds a warning.
        """
        given = getattr(self.given, name)
        if stored is None and given is None:
            self.require(name, published, example)
            return None
        if stored is not None and given is not None and given != stored:
            self.conflicts.append(
                f"{option(name)}: got {given}, expected {stored} as in {origin}; omit the option"
            )
        if stored is None and usual is not None and given != usual:
            self.warnings.append(
                f"{option(name)}: got {given}, but the published value is {published}; with another value than in "
                "training the logits are wrong"
            )
        self.settled[name] = (
            Settled(stored, origin) if stored is not None else Settled(given, f"command line, {option(name)}")
        )
        return self.settled[name].value

    def require(self, name: str, published: str, example: str = "") -> None:
        """Record a setting as missing, with the family's published value."""
        self.ask(name, f"published: {published}", example or published)

    def ask(self, name: str, what: str, example: str) -> None:
        """Record a setting as missing, with what is known of it; an example in capitals is a placeholder."""
        self.missing[option(name)] = what
        self.example[option(name)] = example

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
            lines = "\n".join(f"  {name:<13} {what}" for name, what in self.missing.items())
            raise ConfigError(
                f"{source} is {title}. These settings affect its logits but are not stored in its files; give them "
                f"as they were in training:\n{lines}\n{self._to_paste()}"
            )

    def _to_paste(self) -> str:
        """Return the options to add, with placeholders for what no family publishes."""
        line = " ".join(f"{name} {value}" for name, value in self.example.items())
        unknown = [value for value in self.example.values() if value.partition(".")[0].isupper()]
        if not unknown:
            return f"with the published values: {line}"
        return f"with your model's values for {', '.join(dict.fromkeys(unknown))}: {line}"


def _size(name: str, value: object) -> int | tuple[int, int]:
    """Parse an image size: N for a square, (height, width) for HxW; ConfigError for anything else."""
    edges = re.fullmatch(r"(\d{1,40})(?:[x×](\d{1,40}))?", value.strip()) if isinstance(value, str) else None
    pair = [int(edge or edges[1]) for edge in edges.groups()] if edges else value
    if isinstance(pair, int) and not isinstance(pair, bool):
        pair = (pair, pair)
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(type(edge) is int for edge in pair):
        raise ConfigError(f"{name}: got {value!r}, expected N or HxW in pixels, such as 224 or 128x256")
    if not all(0 < edge <= MAX_EDGE for edge in pair):
        raise ConfigError(f"{name}: got {value}, expected a number above 0 and at most {MAX_EDGE}")
    return pair[0] if pair[0] == pair[1] else (pair[0], pair[1])


def option(name: str) -> str:
    """Return the command-line option of a field."""
    return "--" + name.replace("_", "-")
