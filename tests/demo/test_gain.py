"""What the demo says that adaptive routing gains, from constructed measurements."""

from __future__ import annotations

import pytest
from scene_runs import CHEAP, IMAGES, MEAN, gain, way

from morvit_deploy.demo.gain import DOES_NOT, PAYS, UNDECIDED
from morvit_deploy.demo.wording import gain_sentences, headline, speed_sentence
from morvit_deploy.timing.result import Ratio

SURELY, PERHAPS = 30, 5  # wrong classes of a schedule: shown to be less accurate than 4 wrong ones, or not


def test_it_pays_against_the_cheapest_of_the_same_accuracy() -> None:
    found = gain([(SURELY, MEAN), (PERHAPS, 2 * MEAN), (4, 3 * MEAN)])
    assert (found.outcome, found.rival.name, found.factor) == (
        PAYS,
        "top-k at 1× the capacity of scenes-topk",
        2.0,
    )
    assert gain_sentences(found) == (
        "Adaptive routing takes 1.5 MMACs for a scene of 1 digit and 5.5 MMACs for one of 2. On these 200 scenes it "
        "takes 2.5 MMACs on average, top-1 98.00 %: 2.00× fewer MACs than the cheapest fixed schedule of the same "
        "accuracy, top-k at 1× the capacity of scenes-topk (5 MMACs, top-1 97.50 %)."
    )
    assert headline(found) == "2.00× fewer MACs than the cheapest top-k of the same accuracy"


def test_it_does_not_pay_where_top_k_is_cheaper_and_as_accurate() -> None:
    found = gain([(4, CHEAP), (4, 2 * MEAN)])
    assert (found.outcome, found.rival.scale) == (DOES_NOT, 0)
    assert "does not pay here" in gain_sentences(found) and "scenes-topk (1.5 MMACs" in gain_sentences(found)
    assert "does not pay: 1.67×" in headline(found)


def test_a_cheaper_schedule_of_perhaps_the_same_accuracy_is_named() -> None:
    found = gain([(PERHAPS, CHEAP), (4, 3 * MEAN)])
    assert (found.outcome, found.rival.scale, found.peer_factor) == (UNDECIDED, 0, 3.0)
    says = gain_sentences(found)
    assert "top-1 is no lower takes 3.00× as many (top-k at 1× the capacity of scenes-topk)" in says
    assert (
        "too few to show top-k at 0× the capacity of scenes-topk (1.5 MMACs, top-1 97.50 %) to be less"
        in says
    )
    assert headline(found) == "3.00× fewer MACs than the cheapest top-k whose top-1 is no lower"


@pytest.mark.parametrize("macs", [MEAN, MEAN + 100_000, MEAN - 100_000])
def test_undecided_where_cost_is_within_chance(macs: int) -> None:
    found = gain([(4, macs), (4, 3 * MEAN)])
    assert found.outcome == UNDECIDED
    assert f"{IMAGES} scenes do not show whether adaptive routing pays" in gain_sentences(found)
    assert "do not show" in headline(found)


def test_it_does_not_pay_where_thresholds_lose_accuracy() -> None:
    found = gain([(SURELY, MEAN), (SURELY, 3 * MEAN)], wrong=SURELY)
    assert found.outcome == DOES_NOT
    assert "top-1 is 85.00 % on these 200 scenes, with every token in every step 98.00 %" in gain_sentences(
        found
    )
    assert "less accurate than every token" in headline(found)


def test_every_token_is_the_rival_if_no_top_k_is_as_accurate() -> None:
    found = gain([(SURELY, MEAN)])
    assert found.rival is found.dense and found.factor == 4.0
    assert headline(found) == "4.00× fewer MACs than every token in every step"


def test_accuracy_is_compared_image_by_image() -> None:
    """As many wrong classes, but of other images: the interval is wider, and top-1 the same."""
    same, other = way("", 10, 1), way("", 10, 1, first=100)
    assert same.top1 == other.top1 and same.as_accurate_as(other)
    assert same.difference(other).low < same.difference(same).low < 0
    assert not way("", 20, 1).as_accurate_as(same) and way("", 20, 1).as_accurate_as(other)


def test_one_kind_of_scene_has_one_cost() -> None:
    found = gain([(4, 2 * MEAN)])
    found.objects[:] = 3
    try:
        assert gain_sentences(found).startswith("Adaptive routing takes 2.5 MMACs for a scene. ")
    finally:
        found.objects[:] = [1, 1, 1, 2] * (IMAGES // 4)


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        (
            (1.2, 1.3, 1.4),
            "it is faster, too: 0.500 ms an image against 0.650 (1.30× as fast, 1.20–1.40 over",
        ),
        ((0.7, 0.8, 0.9), "it is slower: 0.500 ms an image against 0.650 (0.80× as fast"),
        ((0.9, 1.1, 1.2), "the blocks do not agree on which is faster"),
    ],
)
def test_the_clock_is_believed_only_if_all_blocks_agree_and_nobody_else_computes(
    blocks: tuple[float, ...], says: str
) -> None:
    ratio = Ratio("a", "b", blocks)
    assert says in speed_sentence(ratio, 0.5, 0.65, busy=False)
    assert "so its clock decides nothing: 0.500 ms" in speed_sentence(ratio, 0.5, 0.65, busy=True)
