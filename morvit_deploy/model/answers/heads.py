"""What logits say: probabilities of classes, and which classes are decided for. No torch.

With activation none, the logits are numbers of their own, such as a regression's. A softmax head decides for the best
class. A sigmoid head decides on each class by itself: yes if its logit is above
0, a probability above one half. A single logit is judged by its sign: the best of one class is always the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SOFTMAX, SIGMOID, PLAIN = "softmax", "sigmoid", "none"  # values of `head_activation`
UNDECIDED = "undecided"  # of outputs that are no logits, such as features: nothing is decided by them


def probabilities(logits: NDArray[Any], activation: str = SOFTMAX) -> NDArray[np.float64]:
    """Return the probability of each class, with the shape of logits (…, classes), in float64.

    With activation none there are no probabilities, and the logits are returned.
    """
    wide = logits.astype(np.float64)
    if activation == PLAIN:
        return wide
    if activation == SIGMOID:
        power = np.exp(-np.abs(wide))  # never overflows
        each: NDArray[np.float64] = np.where(wide >= 0, 1.0, power) / (1 + power)
        return each
    shifted = np.exp(wide - wide.max(axis=-1, keepdims=True))
    shared: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return shared


def decided(logits: NDArray[Any], activation: str = SOFTMAX) -> NDArray[np.int64]:
    """Return the decisions of logits (images, classes): the best class (images, 1), or each class's 0 or 1."""
    if activation == UNDECIDED:
        return np.zeros((len(logits), 1), dtype=np.int64)
    if by_sign(logits.shape[-1], activation):
        return np.asarray(logits > 0, dtype=np.int64)
    return np.asarray(logits.argmax(axis=-1)[:, None], dtype=np.int64)


def same_decisions(a: NDArray[Any], b: NDArray[Any], activation: str = SOFTMAX) -> NDArray[np.bool_]:
    """Return for which images two models' logits (images, classes) lead to the same decisions."""
    same: NDArray[np.bool_] = (decided(a, activation) == decided(b, activation)).all(axis=-1)
    return same


def decision_margins(logits: NDArray[Any], activation: str = SOFTMAX) -> NDArray[Any]:
    """Return how far logits (images, classes) are from another decision: (images,)."""
    if by_sign(logits.shape[-1], activation):
        return np.asarray(np.abs(logits).min(axis=-1))
    best = np.sort(logits, axis=-1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0])


def by_sign(classes: int, activation: str) -> bool:
    """Whether decisions are the signs of logits."""
    return activation == SIGMOID or (classes == 1 and activation != UNDECIDED)
