"""Token merging as pure tensor functions, for both layouts (ToMe, Bolya et al. 2023).

No scatter: the tokens that merge are multiplied by a matrix with one number in a row, at the column of the partner.
"""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.layouts import RowLayout


def directions(metric: Tensor, layout: RowLayout) -> Tensor:
    """Return metrics (…, tokens, width) scaled to one length, so that their products rank as cosines do.

    The length is √width: the sum of squares would leave the range of fp16.
    """
    return metric * (metric * metric).mean(dim=layout.channels, keepdim=True).rsqrt()


def added(
    h: Tensor, size: Tensor | None, merging: Tensor, weight: Tensor, layout: RowLayout
) -> tuple[Tensor, Tensor]:
    """Return the mean of each token of h (…, n, dim) and those that merge into it, and its new size, as numbers.

    `merging` (…, r, dim) are the states that merge. `weight` (…, r, n) has the size of each at the column of its
    partner. `size` are those of h as numbers; None: each is one token.
    """
    incoming = layout.over_rows(weight)
    size = torch.full((1,), 1.0, dtype=incoming.dtype) if size is None else size
    total = incoming + size
    arriving = layout.combine(merging, weight / layout.as_columns(total))
    return h * layout.spread(size / total) + arriving, total
