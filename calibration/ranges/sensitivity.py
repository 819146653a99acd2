"""Greedy search for the layers of a quantised model that stay in float. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.model.answers.heads import SOFTMAX, by_sign, same_decisions


@dataclass(frozen=True)
class Score:
    """The accuracy of a quantised model relative to float."""

    drop: float  # percentage points of top-1 or, without labels, of agreement with float
    snr_db: float  # of the logits: distinguishes models with the same classes

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the manifest; `snr_db` is null if the logits are identical."""
        return {"drop": self.drop, "snr_db": self.snr_db if np.isfinite(self.snr_db) else None}


@dataclass(frozen=True)
class Lift:
    """One row of the table of layers."""

    layer: str
    alone: Score  # with this layer alone in float
    after: Score | None  # with this layer and all rows above it in float; None if it was not lifted

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the manifest."""
        after = None if self.after is None else self.after.as_dict()
        return {"layer": self.layer, "alone": self.alone.as_dict(), "after": after}


@dataclass(frozen=True)
class Search:
    """The result of the search: the score with all layers quantised, and each layer, the worst first."""

    allowed: float
    before: Score
    lifts: tuple[Lift, ...] = ()

    @property
    def lifted(self) -> tuple[str, ...]:
        """Layers that stay in float."""
        return tuple(lift.layer for lift in self.lifts if lift.after is not None)

    @property
    def met(self) -> bool:
        """Whether the drop is within the allowed limit."""
        last = [lift.after for lift in self.lifts if lift.after is not None]
        return (last[-1] if last else self.before).drop <= self.allowed

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the manifest."""
        lifts = [lift.as_dict() for lift in self.lifts]
        return {"allowed": self.allowed, "before": self.before.as_dict(), "met": self.met, "layers": lifts}


def search(layers: Sequence[str], measure: Callable[[frozenset[str]], Score], allowed: float) -> Search:
    """Lift the worst layers to float, one by one, until the drop is at most `allowed` percentage points.

    `measure` takes the layers that stay in float. The worst layer is the one that increases the signal-to-noise ratio
    most if it alone is lifted; ties keep the order of layers. If no lift is needed, no layer is measured.
    """
    before = measure(frozenset())
    if before.drop <= allowed:
        return Search(allowed, before)
    alone = {layer: measure(frozenset([layer])) for layer in layers}
    ranked = sorted(layers, key=lambda layer: -alone[layer].snr_db)
    lifts, lifted, last = [], set(), before
    for layer in ranked:
        after = None
        if last.drop > allowed:
            lifted.add(layer)
            after = last = measure(frozenset(lifted))
        lifts.append(Lift(layer, alone[layer], after))
    return Search(allowed, before, tuple(lifts))


def score(
    float_logits: NDArray[Any],
    logits: NDArray[Any],
    labels: Sequence[int] | None,
    activation: str = SOFTMAX,
) -> Score:
    """Return the score from logits (images, classes) of both models, and a label for each image, if known.

    Labels do not count where decisions are signs: an image may have several classes, or none.
    """
    if labels is None or by_sign(logits.shape[-1], activation):
        alike = float(same_decisions(float_logits, logits, activation).mean())
        return Score(100 * (1 - alike), snr_db(float_logits, logits))
    wanted = np.asarray(labels)
    right = [float((each.argmax(axis=-1) == wanted).mean()) for each in (float_logits, logits)]
    return Score(100 * (right[0] - right[1]), snr_db(float_logits, logits))


def snr_db(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    """Return the signal-to-noise ratio in decibels: 20 dB is an error of a tenth of the signal. Infinite if equal."""
    signal = float(np.square(expected.astype(np.float64)).sum())
    noise = float(np.square(expected.astype(np.float64) - actual).sum())
    if not np.isfinite(noise):
        return float("-inf")
    return float("inf") if not noise else float(10 * np.log10(max(signal, np.finfo(float).tiny) / noise))
