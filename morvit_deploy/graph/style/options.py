"""What the caller chooses about a static graph."""

from __future__ import annotations

from dataclasses import dataclass

from morvit_deploy.errors import ConfigError
from morvit_deploy.graph.style.styles import STYLES, Style

INPUTS = ("uint8", "float")


@dataclass(frozen=True)
class Options:
    """What the graph takes and returns, and its style; none of it changes the logits.

    `cls_only`, `frozen_keys` and `fold` are rewrites 3 to 5: off only to measure what each is worth.
    """

    input: str = "uint8"  # pixels, or "float": normalised; the style's stem documents the shapes
    with_depth: bool = False
    style: Style = STYLES["one-image"]
    cls_only: bool = True
    frozen_keys: bool = True
    fold: bool = True

    def __post_init__(self) -> None:
        """ConfigError for an input that no stem takes."""
        if self.input not in INPUTS:
            raise ConfigError(f"static graph: got input {self.input!r}, expected {' or '.join(INPUTS)}")

    @property
    def single(self) -> bool:
        """Whether the graph is for one image, without a batch axis inside."""
        return self.style.single


DEFAULTS = Options()
