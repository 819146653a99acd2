"""Gates: how many misses are chance, and how many images it takes to tell."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

from morvit_deploy.model.answers.gates import (
    GATES,
    OVERSIGHT,
    SIGNIFICANCE,
    Gate,
    allowed_misses,
    images_needed,
)


def at_least(misses: int, decisions: int, share: Fraction) -> Fraction:
    """Exact probability of `misses` or more, if each decision agrees with probability `share`."""
    fewer = range(misses)
    return 1 - sum(
        (comb(decisions, k) * (1 - share) ** k * share ** (decisions - k) for k in fewer), Fraction(0)
    )


@pytest.mark.parametrize("share", ["0.99", "0.999", "0.995", "0.9", "0.5"])
@pytest.mark.parametrize("decisions", [1, 10, 64, 640])
def test_misses_that_chance_explains_are_allowed_and_no_more(share: str, decisions: int) -> None:
    allowed, exact = allowed_misses(float(share), decisions), Fraction(share)
    assert float(at_least(allowed, decisions, exact)) >= SIGNIFICANCE
    assert allowed == decisions or at_least(allowed + 1, decisions, exact) < SIGNIFICANCE


def test_misses_by_hand() -> None:
    """One token of 640 in fp16 is chance; so are 22 of 2,048 in int8, a sound bundle's; half of them are not."""
    assert 1 <= allowed_misses(0.999, 640) < 10
    assert 22 <= allowed_misses(0.99, 2048) < 50
    assert [allowed_misses(0.99, n) for n in (64, 100, 1000)] == [3, 4, 18]
    assert allowed_misses(1.0, 1000) == 0 and allowed_misses(0.0, 7) == 7
    assert allowed_misses(0.99, 0) == 0


@pytest.mark.parametrize("share", [1.0, 0.999, 0.995, 0.99, 0.98, 0.9])
def test_a_wrong_bundle_does_not_pass_with_enough_images(share: float) -> None:
    needed, wrong = images_needed(share), 1 - Fraction(share) / 2

    def passes(images: int) -> Fraction:
        return 1 - at_least(allowed_misses(share, images) + 1, images, 1 - wrong)

    assert all(passes(images) <= OVERSIGHT for images in range(needed, 33))
    assert passes(needed - 1) > OVERSIGHT


def test_enough_images_are_fewer_than_export_compares() -> None:
    assert {name: gate.images_needed for name, gate in GATES.items()} == {
        "int8": 18, "fp16": 14, "fp16 throughout": 14, "bf16": 18, "w8": 18, "w4": 18,
    }  # fmt: skip  # as the documentation lists them
    assert Gate(0.0, 0.0).images_needed == 1 and Gate(0.5, 0.5).images_needed == 32
    assert Gate(0.9, 0.99).images_needed == images_needed(0.9), "the share that needs more"


def test_an_accepted_share_allows_as_much_power_in_the_error() -> None:
    gate = Gate(0.999, 0.999, 55.0)
    accepted = gate.accepting(0.9)
    assert (accepted.tokens, accepted.top1) == (0.9, 0.9)
    assert accepted.snr_db == pytest.approx(10.0)  # a tenth of the power
    assert gate.accepting(1.0).snr_db == 55.0
    assert gate.accepting(1 - 1e-9).snr_db == 55.0  # never stricter than the gate itself
