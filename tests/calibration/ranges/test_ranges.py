"""Ranges from fixed-size statistics: what each method keeps, and that nothing grows with the images."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from morvit_deploy.calibration.ranges.ranges import (
    BINS,
    INSIDE,
    Counts,
    Span,
    counted_over,
    range_of,
)
from morvit_deploy.model.choices import Method

BIN = 1 / BINS  # of the span: a range's end lies on a bin's edge


def counted(values: NDArray, *, symmetric: bool = False, parts: int = 1) -> tuple[Span, Counts]:
    """Both looks, `parts` chunks each."""
    span = Span()
    for part in np.array_split(values, parts):
        span.add(part)
    counts = counted_over(span, symmetric=symmetric)
    for part in np.array_split(values, parts):
        counts.add(part)
    return span, counts


def gelu_like(count: int = 50_000) -> NDArray:
    """Many values just below zero, few far above, and one that is alone."""
    z = np.random.default_rng(0).normal(size=count)
    values = z / (1 + np.exp(-1.702 * z))
    values[0] = 60.0
    return values.astype(np.float32)


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
def test_chunks_and_their_order_change_nothing(method: str, symmetric: bool) -> None:
    values = gelu_like()
    ends = {
        range_of(method, *counted(order, symmetric=symmetric, parts=parts), symmetric=symmetric)  # type: ignore[arg-type]  # a str from parametrize
        for order, parts in ((values, 1), (values, 7), (values[::-1], 3))
    }
    assert len(ends) == 1


def test_minmax_is_the_extremes() -> None:
    span, counts = counted(gelu_like())
    assert range_of("minmax", span, counts, symmetric=False) == (span.low, span.high)
    assert span.high == 60.0 and span.low == pytest.approx(gelu_like().min())


def test_percentile_keeps_its_share_and_drops_the_lonely_value() -> None:
    values = gelu_like()
    low, high = range_of("percentile", *counted(values), symmetric=False)
    inside = ((values >= low) & (values <= high)).mean()
    assert inside >= INSIDE - 1 / len(values)
    assert high < 10, "one value in 50,000 is not worth nine tenths of the range"
    assert low == pytest.approx(values.min(), abs=60 * BIN)


def test_symmetric_percentile_is_around_zero() -> None:
    values = np.random.default_rng(1).normal(size=100_000)
    low, high = range_of("percentile", *counted(values, symmetric=True), symmetric=True)
    assert low == pytest.approx(-high)
    assert (np.abs(values) <= high).mean() >= INSIDE - 1e-5
    assert high == pytest.approx(3.89, abs=0.1), "where the normal distribution has 99.99 % between"


def test_entropy_clips_an_outlier_and_keeps_a_full_range() -> None:
    low, high = range_of("entropy", *counted(gelu_like()), symmetric=False)
    assert low < 0 < high < 30
    even = np.random.default_rng(2).uniform(-1, 3, 100_000)
    low, high = range_of("entropy", *counted(even), symmetric=False)
    assert low == pytest.approx(-1, abs=0.05) and high == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("method", get_args(Method))
def test_a_constant_has_a_range(method: str) -> None:
    span, counts = counted(np.full(100, 0.25, dtype=np.float32))
    assert range_of(method, span, counts, symmetric=False) == (0.25, 0.25)  # type: ignore[arg-type]  # a str from parametrize


def test_what_is_kept_does_not_grow() -> None:
    _, few = counted(gelu_like(1000))
    _, many = counted(gelu_like(200_000))
    assert few.counts.nbytes == many.counts.nbytes == 8 * BINS
    assert many.counts.sum() == 200_000
