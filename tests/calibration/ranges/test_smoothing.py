"""Smoothing factors: powers of two that bring channels together, dead channels left alone."""

from __future__ import annotations

import numpy as np

from morvit_deploy.calibration.ranges.smoothing import FURTHEST, smoothing_exponents


def test_a_loud_channel_is_quietened() -> None:
    reach, rows = np.array([1.0, 1.0, 16.0, 1.0]), np.ones(4)
    exponents = smoothing_exponents(reach, rows)
    assert exponents.tolist() == [0, 0, 2, 0], "half of four octaves"
    assert (reach / 2.0**exponents).max() == 4 and (rows * 2.0**exponents).max() == 4


def test_what_weights_already_carry_is_not_added_to() -> None:
    assert smoothing_exponents(np.array([4.0, 1.0, 1.0]), np.array([4.0, 1.0, 1.0])).tolist() == [0, 0, 0]


def test_a_common_factor_is_no_factor() -> None:
    rng = np.random.default_rng(0)
    reach, rows = rng.uniform(0.1, 9, 64), rng.uniform(0.1, 9, 64)
    once = smoothing_exponents(reach, rows)
    assert np.array_equal(once, smoothing_exponents(reach * 4, rows)) or np.array_equal(
        once, smoothing_exponents(reach * 16, rows)
    )


def test_dead_channels_are_left_and_none_goes_too_far() -> None:
    exponents = smoothing_exponents(np.array([0.0, 1.0, 1e30, 1.0]), np.array([1.0, 0.0, 1.0, 1.0]))
    assert exponents[0] == exponents[1] == 0
    assert np.abs(exponents).max() <= FURTHEST
    assert 2 ** smoothing_exponents(np.array([1e30, 1.0, 1.0]), np.ones(3)).max() == 256
    assert smoothing_exponents(np.zeros(3), np.ones(3)).tolist() == [0, 0, 0]
