"""How much token counts vary between images, and what a bucket for each image would cost. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

INNER = (5, 95)  # percentiles: nine of ten images are between them


@dataclass(frozen=True)
class Spread:
    """Patch tokens that run a step, averaged over the steps of an image, and costs in MACs or milliseconds."""

    images: int
    mean: float  # tokens
    deviation: float  # standard deviation over images
    low: float  # 5th percentile
    high: float  # 95th percentile
    each: float  # expected cost with a bucket for each image: a lower bound for any number of buckets
    one: float  # cost of one bucket that holds every image

    @property
    def ratio(self) -> float:
        """How much cheaper a bucket for each image is than one bucket for all."""
        return self.one / self.each

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a report."""
        return asdict(self) | {"ratio": self.ratio}


def spread_of(counts: NDArray[np.int64], cost: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> Spread:
    """Return the spread of counts (images, steps); `cost` returns the cost of each of m schedules (m, steps)."""
    tokens = counts.mean(axis=1)
    low, high = np.percentile(tokens, INNER).tolist()
    return Spread(
        images=len(counts),
        mean=float(tokens.mean()),
        deviation=float(tokens.std()),
        low=low,
        high=high,
        each=float(cost(counts).mean()),
        one=float(cost(counts.max(axis=0, keepdims=True))[0]),
    )
