"""Conversion of probes to the form that `routes` reads: rows of channels, and positions for one-hot rows. No torch.

A probe is a value inside the exported graph, so it has the layout of the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.model.choices import Layout, Select


def plain(name: str, value: NDArray[Any], layout: Layout, select: Select) -> NDArray[Any]:
    """Convert one image's probe: states and router logits to (tokens, channels), numbers to (n,).

    In `bc1s`, states and router logits are (1, channels, 1, tokens) and numbers (1, 1, 1, n). With `onehot`, an order
    is a 0/1 matrix (k, n) or (1, n, 1, k) with a 1 at the position of each of the k best tokens. `into` is a matrix
    (k, n) in every graph, with a 1 at the partner of each of the k tokens that merge.
    """
    if name.endswith(".order") and select == "onehot":
        positions: NDArray[np.intp] = value.argmax(axis=1)
        return positions.reshape(-1)
    if layout == "bsd":
        return value
    if name.endswith(".into"):  # (1, k, 1, n)
        return value[0, :, 0]
    if name.endswith((".order", ".runs")):
        return value.reshape(-1)
    channels: NDArray[Any] = value[0, :, 0].T
    return channels
