"""Histograms of router logits: merging to the bit, and thresholds that keep what was asked for."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from morvit_deploy.calibration.routing.histograms import BINS, FURTHEST, Histogram, threshold_for
from morvit_deploy.errors import AnswerError, ConfigError

SMOOTH = 5e-4  # of the logits: over smooth data the spread within a bin is even but for sampling noise
logits = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=60)


def histogram_of(*parts: Any) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, dtype=np.float32))
    return histogram


def kept_by(threshold: float, values: NDArray[np.float32]) -> int:
    """As a float32 runtime counts."""
    return int((values >= np.float32(threshold)).sum())


def bin_fill(values: NDArray[np.float32], target: int) -> int:
    """Logits in the bin of the `target`-th highest: what ties within one bin may cost."""
    nth = np.sort(values)[::-1][target - 1]
    return int(histogram_of(values).counts[int(histogram_of([nth]).counts.argmax())])


@given(values=logits, data=st.data())
def test_merging_is_bit_equal_under_any_split_and_order(values: list[float], data: st.DataObject) -> None:
    whole = histogram_of(values).counts
    shuffled = data.draw(st.permutations(values))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    edges = [0, *cuts, len(values)]
    parts = [histogram_of(shuffled[a:b]) for a, b in pairwise(edges)]
    merged = Histogram()
    for part in data.draw(st.permutations(parts)):
        merged = merged.merge(part)
    np.testing.assert_array_equal(merged.counts, whole)
    nested = parts[0].merge(histogram_of(shuffled[edges[1] :]))
    np.testing.assert_array_equal(nested.counts, whole)


def test_merging_changes_neither() -> None:
    first, second = histogram_of([1, 2]), histogram_of([3])
    both = first.merge(second)
    both.add(np.ones(5))
    assert (first.total, second.total, both.total) == (2, 1, 8)


@given(values=logits, target=st.integers(-2, 62))
def test_the_kept_number_is_within_one_bin_of_the_target(values: list[float], target: int) -> None:
    array = np.asarray(values, dtype=np.float32)
    kept = kept_by(threshold_for(histogram_of(array), target), array)
    if 0 < target < len(values):
        assert abs(kept - target) <= bin_fill(array, target)
    else:
        assert kept == min(max(target, 0), len(values))


@pytest.mark.parametrize("scale", [0.1, 1.0, 50.0, 1e6])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.41, 0.9, 0.999])
def test_random_logits(scale: float, share: float) -> None:
    values = (scale * np.random.default_rng(0).standard_normal(200_000)).astype(np.float32)
    histogram = histogram_of(*np.split(values, 8))
    target = round(share * values.size)
    kept = kept_by(threshold_for(histogram, target), values)
    assert abs(kept - target) <= min(bin_fill(values, target), SMOOTH * values.size)


def test_inside_a_bin_logits_are_taken_to_be_evenly_spread() -> None:
    values = np.linspace(3.0, 3.0001, 1001, dtype=np.float32)  # one bin or two
    histogram = histogram_of(values)
    assert np.count_nonzero(histogram.counts) <= 2
    thresholds = [threshold_for(histogram, target) for target in range(1, 1001)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert len(set(thresholds)) > 500


@given(values=logits, target=st.integers(-2, 62))
def test_a_threshold_is_a_float32_number_and_follows_from_the_counts(
    values: list[float], target: int
) -> None:
    histogram = histogram_of(values)
    threshold = threshold_for(histogram, target)
    assert type(threshold) is float and threshold == float(np.float32(threshold))
    assert threshold == threshold_for(Histogram(histogram.counts.copy()), target)


@given(values=logits)
def test_keeping_more_never_raises_the_threshold(values: list[float]) -> None:
    histogram = histogram_of(values)
    thresholds = [threshold_for(histogram, target) for target in range(-1, len(values) + 2)]
    assert thresholds == sorted(thresholds, reverse=True)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -7.25, 1e-30, -1e-30, 300.0])
def test_ties_are_kept_or_left_together(value: float) -> None:
    values = np.full(1000, value, dtype=np.float32)
    histogram = histogram_of(values)
    assert np.count_nonzero(histogram.counts) == 1
    kept = [kept_by(threshold_for(histogram, target), values) for target in (-1, 0, 400, 1000, 2000)]
    assert kept[:2] == [0, 0] and kept[2] in (0, 1000) and kept[3:] == [1000, 1000]


def test_logits_of_exactly_zero_are_kept_when_all_of_them_are_wanted() -> None:
    """Zero is a bin's lower edge, and what a router at initialisation answers."""
    values = np.repeat(np.asarray([0.0, -1.0], dtype=np.float32), 500)
    assert threshold_for(histogram_of(values), 500) == 0.0
    assert kept_by(0.0, values) == 500


def test_below_the_lowest_and_above_the_highest_there_is_room_for_rounding() -> None:
    values = np.asarray([-2.0, 0.0, 3.0], dtype=np.float32)
    histogram = histogram_of(values)
    assert 1e-4 < threshold_for(histogram, 0) - 3.0 < 1e-2
    assert 1e-4 < -2.0 - threshold_for(histogram, 3) < 1e-2


def test_the_end_bins_have_a_middle_where_they_are_empty() -> None:
    """Bins are 20 / 32,768 wide in asinh(z), and the first begins at −20."""
    for occupied, target, position in ((1, 1, -20 + 10 / 32_768), (BINS - 2, 0, 20 - 10 / 32_768)):
        counts = np.zeros(BINS, dtype=np.int64)
        counts[occupied] = 1
        assert threshold_for(Histogram(counts), target) == float(np.float32(np.sinh(position)))


def test_outliers_go_into_the_end_bins() -> None:
    values = np.asarray([-3e38, -1e30, 0.5, 1e30, 3e38], dtype=np.float32)
    histogram = histogram_of(values)
    assert histogram.counts[0] == 2 and histogram.counts[-1] == 2 and histogram.total == 5
    assert threshold_for(histogram, 0) == FURTHEST and threshold_for(histogram, 5) == -FURTHEST
    assert kept_by(threshold_for(histogram, 2), values) == 2
    assert kept_by(threshold_for(histogram, 3), values) == 3


def test_float16_and_float64_and_any_shape_count_alike() -> None:
    values = np.arange(-6, 6, dtype=np.float16).reshape(3, 4)
    histogram = Histogram()
    for dtype in (np.float16, np.float32, np.float64):
        histogram.add(values.astype(dtype))
    np.testing.assert_array_equal(histogram.counts, 3 * histogram_of(values).counts)
    histogram.add(np.empty((0, 4)))
    assert histogram.total == 36


def test_the_size_does_not_grow() -> None:
    histogram = histogram_of(np.zeros(100_000), np.arange(100_000))
    assert histogram.counts.nbytes == histogram_of([1]).counts.nbytes == BINS * 8


def test_an_empty_histogram_has_no_threshold() -> None:
    assert Histogram().total == 0
    with pytest.raises(ConfigError, match="empty histogram of router logits, expected at least 1"):
        threshold_for(Histogram(), 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    histogram = histogram_of([1.0])
    with pytest.raises(AnswerError, match="got NaN or Inf in 1 of 3, expected finite"):
        histogram.add(np.asarray([0.0, value, 2.0]))
    assert histogram.total == 1


@pytest.mark.parametrize(
    "counts",
    [np.zeros(3, dtype=np.int64), np.zeros(BINS), np.full(BINS, -1, dtype=np.int64)],
    ids=["short", "float", "negative"],
)
def test_counts_of_another_format_are_refused(counts: NDArray[Any]) -> None:
    with pytest.raises(ConfigError, match=r"histogram: got counts .* expected int64 \(65536,\)"):
        Histogram(counts)
