"""How much token counts vary between images, and what a bucket for each image would cost. No torch."""

from __future__ import annotations

import math
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
    """Return the spread of counts (images, steps); `cost` returns the cost of each of m schedules (m, steps).

    The order of the images does not change a bit of the result.
    """
    images, steps = counts.shape
    sums = np.sort(counts.sum(axis=1, dtype=np.int64))
    total, squares = int(sums.sum()), int((sums**2).sum())
    low, high = (np.percentile(sums, INNER) / steps).tolist()
    return Spread(
        images=images,
        mean=total / (images * steps),
        deviation=math.sqrt(images * squares - total**2) / (images * steps),
        low=low,
        high=high,
        each=math.fsum(cost(counts)) / images,
        one=float(cost(counts.max(axis=0, keepdims=True))[0]),
    )
