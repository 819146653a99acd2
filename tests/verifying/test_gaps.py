"""Differences between logits, in numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from morvit_deploy.verifying.findings import MARGIN, Gap
from morvit_deploy.verifying.gaps import (
    EXACT_TOLERANCE,
    LOGIT_TOLERANCE,
    LogitPairs,
    gap_of,
    is_clear,
    shares_of,
    snr_db_of,
    worst_of,
)

NAN = float("nan")


def pairs_of(*chunks: tuple[list[list[float]], list[list[float]]]) -> LogitPairs:
    pairs = LogitPairs()
    for expected, actual in chunks:
        pairs.add(np.array(expected, np.float32), np.array(actual, np.float32))
    return pairs


def test_the_signal_to_noise_ratio_is_that_of_all_chunks() -> None:
    near, equal = ([[3.0, 4.0]], [[3.0, 4.5]]), ([[0.0, 5.0]], [[0.0, 5.0]])
    assert pairs_of(near).snr_db() == pytest.approx(20)  # 25 to 0.25
    assert pairs_of(near, equal).snr_db() == pytest.approx(10 * math.log10(200))  # 50 to 0.25
    assert pairs_of(equal).snr_db() == math.inf
    assert pairs_of(near, ([[1.0, 1.0]], [[NAN, 1.0]])).snr_db() == -math.inf
    assert pairs_of(([[0.0, 0.0]], [[0.0, 1.0]])).snr_db() == -math.inf, "noise without a signal"


def test_the_median_is_over_images_and_not_over_chunks() -> None:
    first = ([[3.0, 4.0], [0.0, 5.0], [0.0, 1.0]], [[3.0, 4.5], [0.0, 5.0], [0.0, 2.0]])  # 20 dB, equal, 0 dB
    second = ([[3.0, 4.0], [1.0, 3.0]], [[3.0, 9.0], [2.0, 3.0]])  # 0 dB, 10 dB
    assert pairs_of(first).median_snr_db() == pytest.approx(20)
    assert pairs_of(first, second).median_snr_db() == pytest.approx(10)
    assert LogitPairs().median_snr_db() == math.inf
    none = LogitPairs()
    none.add(np.zeros((0, 2)), np.zeros((0, 2)))
    assert none.median_snr_db() == math.inf


def test_the_ratio_of_each_image() -> None:
    expected = np.array([[3.0, 4.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    actual = np.array([[3.0, 4.5], [1.0, 2.0], [NAN, 2.0], [math.inf, 2.0]])
    assert snr_db_of(expected, actual).tolist() == pytest.approx([20, math.inf, -math.inf, -math.inf])


def test_a_gap_is_the_largest_difference_and_its_tolerance_scales_with_the_logits() -> None:
    expected = np.array([[1.0, -3.0], [0.5, 2.0]])
    found = gap_of(expected, np.array([[1.0, -3.5], [0.5, 2.25]]), 1e-3)
    assert found == Gap(0.5, 3e-3, 1.0)
    assert gap_of(expected / 10, np.array([[0.1, -0.3], [0.2, 0.05]]), 1e-3).tolerance == 1e-3, "not below 1"
    assert gap_of(expected, np.array([[1.0, NAN], [0.5, 2.0]]), 1e-3).max_abs == math.inf
    assert gap_of(np.zeros((0, 2)), np.zeros((0, 2)), 1e-3) == LogitPairs().gap(1e-3) == Gap(0.0, 1e-3, 1.0)


def test_the_gap_of_chunks_is_that_of_all_images() -> None:
    pairs = pairs_of(([[1.0, 0.0]], [[1.25, 0.0]]), ([[0.0, 4.0]], [[5.0, 4.0]]))
    assert pairs.gap(1e-3) == Gap(5.0, 4e-3, 0.5)


def test_the_worst_gap_is_the_largest_relative_to_its_tolerance() -> None:
    gaps = [Gap(0.5, 1.0, 1.0), Gap(0.2, 0.1, 1.0), Gap(0.1, 1.0, 0.5)]
    assert worst_of(gaps) == Gap(0.2, 0.1, 0.5)
    assert worst_of([Gap(1.0, 2.0, 1.0), Gap(2.0, 4.0, 1.0), Gap(0.5, 1.0, 1.0)]) == Gap(2.0, 4.0, 1.0)


def test_images_at_the_margin_are_not_compared() -> None:
    assert is_clear(np.array([0.0, MARGIN, 1.01 * MARGIN, 1.0, NAN])).tolist() == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_shares_are_of_all_chunks() -> None:
    counts = [np.array([[3, 4], [0, 0]]), np.array([[1, 4], [0, 0]])]
    assert shares_of(counts) == [0.5, 1.0] and shares_of([]) == []


def test_the_tolerances_are_the_documented_ones() -> None:
    assert (LOGIT_TOLERANCE, EXACT_TOLERANCE, MARGIN) == (1e-4, 1e-9, 1e-4)
