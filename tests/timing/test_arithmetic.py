"""Mixes, weighted percentiles and paired differences, on made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morvit_deploy.timing.arithmetic import (
    OVERFLOWED,
    after_overflow,
    alternating,
    difference,
    expected_over,
    grouped,
    percentile_over,
    shares_of,
    weighted_percentile,
)

SAMPLES = st.lists(st.floats(0.01, 100), min_size=1, max_size=30)


class TestWeightedPercentile:
    @pytest.mark.parametrize(
        ("rank", "expected"), [(0, 1.0), (50, 2.0), (75, 2.0), (75.1, 4.0), (99, 4.0), (100, 4.0)]
    )
    def test_is_the_least_sample_that_reaches_the_weight(self, rank: float, expected: float) -> None:
        assert weighted_percentile([4.0, 1.0, 2.0], [1.0, 1.0, 2.0], rank) == expected

    def test_sums_of_decimal_shares_do_not_pass_a_rank_by(self) -> None:
        assert weighted_percentile([float(i) for i in range(1, 11)], [0.1] * 10, 30) == 3.0

    def test_what_has_no_weight_is_no_sample(self) -> None:
        assert weighted_percentile([1.0, 2.0, 3.0], [0.0, 1.0, 0.0], 0) == 2.0
        assert weighted_percentile([1.0, 2.0, 3.0], [0.0, 1.0, 0.0], 100) == 2.0

    @pytest.mark.parametrize(
        ("samples", "weights"), [([1.0], [0.0]), ([], []), ([1.0], [-1.0]), ([1.0], [1.0, 2.0])]
    )
    def test_nothing_to_weigh(self, samples: list[float], weights: list[float]) -> None:
        with pytest.raises(ValueError, match="expected weights above 0"):
            weighted_percentile(samples, weights, 50)

    @given(samples=SAMPLES, rank=st.integers(1, 100))
    def test_equal_weights_are_no_weights(self, samples: list[float], rank: int) -> None:
        expected = np.percentile(samples, rank, method="inverted_cdf")
        assert weighted_percentile(samples, [0.25] * len(samples), rank) == expected

    @given(samples=SAMPLES, times=st.integers(1, 4), rank=st.integers(1, 100))
    def test_a_weight_of_two_is_a_sample_twice(self, samples: list[float], times: int, rank: int) -> None:
        weights = [times if i % 2 else 1 for i in range(len(samples))]
        repeated = [sample for sample, weight in zip(samples, weights, strict=True) for _ in range(weight)]
        expected = weighted_percentile(repeated, [1.0] * len(repeated), rank)
        assert weighted_percentile(samples, [float(weight) for weight in weights], rank) == expected


class TestMix:
    def test_percentile_over_a_mix_does_not_depend_on_how_many_samples_a_kind_has(self) -> None:
        mix = {"b0": 0.95, "full": 0.05}
        for copies in (1, 7):
            assert percentile_over(mix, {"b0": [1.0] * copies, "full": [5.0]}, 95) == 1.0
            assert percentile_over(mix, {"b0": [1.0] * copies, "full": [5.0]}, 96) == 5.0

    def test_percentile_over_a_mix_needs_no_samples_of_what_never_comes(self) -> None:
        assert percentile_over({"b0": 1.0, "full": 0.0}, {"b0": [3.0]}, 99) == 3.0

    def test_expected_is_shares_times_latencies(self) -> None:
        assert expected_over({"b0": 0.75, "full": 0.25}, {"b0": 2.0, "full": 6.0}) == 3.0

    def test_expected_over_rounded_shares(self) -> None:
        assert expected_over({"b0": 0.5, "full": 0.25, "b1": 0.0}, {"b0": 3.0, "full": 6.0}) == 4.0

    def test_overflow_is_taken_from_what_comes_before_full(self) -> None:
        found = after_overflow({"b0": 0.5, "b1": 0.25, "full": 0.25}, 0.15, "full")
        assert found == {"b0": 0.4, "b1": 0.2, "full": 0.25, OVERFLOWED: 0.15}

    def test_no_overflow_changes_nothing(self) -> None:
        assert after_overflow({"b0": 0.7, "full": 0.3}, 0.0, "full") == {"b0": 0.7, "full": 0.3}

    def test_no_more_overflows_than_there_is(self) -> None:
        assert after_overflow({"b0": 0.25, "full": 0.75}, 0.5, "full") == {
            "b0": 0,
            "full": 0.75,
            OVERFLOWED: 0.25,
        }
        assert after_overflow({"full": 1.0}, 0.5, "full") == {"full": 1.0}

    def test_shares_of_answers(self) -> None:
        assert shares_of(["full", "b0", "b0", OVERFLOWED]) == {"full": 0.25, "b0": 0.5, OVERFLOWED: 0.25}
        assert shares_of([]) == {}


class TestDifference:
    def test_goes_pair_by_pair(self) -> None:
        found = difference([3.0, 5.0, 9.0], [2.0, 5.0, 6.0])
        assert found.per_block_ms == (1.0, 0.0, 3.0)
        assert found.per_block_percent == (50.0, 0.0, 50.0)
        assert (found.median_ms, found.median_percent) == (1.0, 50.0)
        assert found.as_dict()["min_ms"] == 0.0
        assert found.as_dict()["max_ms"] == 3.0

    def test_blocks_must_be_pairs(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            difference([1.0, 2.0], [1.0])


class TestOrders:
    def test_alternating_changes_at_every_entry(self) -> None:
        assert alternating([[1, 2], [11], [21, 22, 23]], 7) == [1, 11, 21, 2, 11, 22, 1, 11, 23]

    def test_grouped_are_the_same_entries(self) -> None:
        assert grouped([[1, 2], [11], [21, 22, 23]], 7) == [1, 2, 1, 11, 11, 11, 21, 22, 23]
