"""Probes of any form as `routes` reads them: rows of channels, and positions instead of one-hot rows. No torch.

A probe is a value inside the shipped graph, so it has the graph's own layout until it is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.model.choices import Layout, Select


def plain(name: str, value: NDArray[Any], layout: Layout, select: Select) -> NDArray[Any]:
    """One image's probe `name` without a batch axis: states and router logits (tokens, channels), numbers (n,).

    `bc1s` has states and router logits (1, channels, 1, tokens), numbers (1, 1, 1, n). With `onehot` an order is a
    matrix of 0 and 1 in which each of the k best tokens has a 1 at its position among n: (k, n), or (1, n, 1, k).
    """
    if name.endswith(".order") and select == "onehot":
        positions: NDArray[np.intp] = value.argmax(axis=1)
        return positions.reshape(-1)
    if layout == "bsd":
        return value
    if name.endswith((".order", ".runs")):
        return value.reshape(-1)
    channels: NDArray[Any] = value[0, :, 0].T
    return channels
