"""Bucket fitting against brute force on small cases. Costs are whole numbers: means of them compare to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, combinations_with_replacement, pairwise, product
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from morvit_deploy.calibration.buckets import exact, predicted, search
from morvit_deploy.calibration.buckets.exact import fit_exact
from morvit_deploy.calibration.buckets.ladders import (
    Cost,
    Floats,
    Images,
    Ints,
    Ladder,
    Schedule,
    assign,
    choose_buckets,
    evaluate_exact,
    evaluate_predicted,
    gather,
    predict,
)
from morvit_deploy.calibration.buckets.predicted import fit_predicted
from morvit_deploy.errors import ConfigError

STEM = 7  # what a second run does not repeat
MANY = settings(max_examples=100)  # tiny cases


def macs(schedules: Ints) -> Any:
    """Layers and attention of a small model: later steps a little dearer, so that order matters."""
    table = np.asarray(schedules, dtype=np.float64)
    return (table * np.arange(8, 8 + table.shape[1]) + table**2).sum(axis=1) + STEM


def steps(schedules: Ints) -> Any:
    """Every token in every step costs 1."""
    return np.asarray(schedules, dtype=np.float64).sum(axis=1)


def price(schedule: Sequence[int], cost: Cost = macs) -> float:
    return float(cost(np.asarray([schedule]))[0])


def full_of(counts: Ints, num_patches: int) -> Schedule:
    return (num_patches,) * counts.shape[1]


def again_of(counts: Ints, num_patches: int) -> float:
    """The trunk of full."""
    return price(full_of(counts, num_patches)) - STEM


def fits(image: Sequence[int], schedule: Sequence[int]) -> bool:
    return all(n <= c for n, c in zip(image, schedule, strict=True))


@st.composite
def cases(draw: Any, most: int = 6, images: int = 7) -> tuple[Ints, int]:
    """Counts (n, R) and N."""
    num_patches, num_steps = draw(st.integers(1, most)), draw(st.integers(1, 3))
    row = st.lists(st.integers(0, num_patches), min_size=num_steps, max_size=num_steps)
    rows = draw(st.lists(row.map(lambda r: sorted(r, reverse=True)), min_size=1, max_size=images))
    return np.asarray(rows), num_patches


@st.composite
def routed_cases(draw: Any, images: int = 7) -> tuple[Ints, int, int]:
    """Counts (n, R), N and the first routed step."""
    counts, num_patches = draw(cases(images=images))
    lead_step = draw(st.integers(0, counts.shape[1] - 1))
    counts[:, :lead_step] = num_patches
    return counts, num_patches, lead_step


@st.composite
def ladders(draw: Any, num_patches: int, num_steps: int) -> list[Schedule]:
    """Any schedules, cheapest first and the last full."""
    row = st.lists(st.integers(0, num_patches), min_size=num_steps, max_size=num_steps)
    rows = draw(st.lists(row.map(lambda r: tuple(sorted(r, reverse=True))), max_size=3))
    return [*sorted(rows, key=price), (num_patches,) * num_steps]


def many_images(count: int, num_steps: int = 6, num_patches: int = 64, seed: int = 0) -> Ints:
    """Easy and hard images, each losing tokens from step to step."""
    rng = np.random.default_rng(seed)
    keep = rng.beta(3, 2, size=(count, 1)) * np.ones(num_steps)
    held, columns = np.full(count, num_patches), []
    for step in range(num_steps):
        held = rng.binomial(held, keep[:, step])
        columns.append(held)
    return np.stack(columns, axis=1)


def partings(pieces: int, groups: int) -> list[list[tuple[int, int]]]:
    """Every way to part the first pieces into at most `groups` groups of neighbours."""
    return [
        list(pairwise(bounds))
        for number in range(1, min(groups, pieces) + 2)
        for bounds in combinations(range(pieces + 1), number)
        if bounds[0] == 0
    ]


def best_parting(counts: Ints, buckets: int, num_patches: int) -> float:
    """The mean cost of the best parting, each image in its group's envelope or in full."""
    rows = sorted({tuple(row) for row in counts.tolist()}, key=lambda row: (price(row), row))
    weights = [counts.tolist().count(list(row)) for row in rows]
    found = []
    for groups in partings(len(rows), buckets - 1):
        paid = [price(np.max(rows[a:b], axis=0)) * sum(weights[a:b]) for a, b in groups]
        served = groups[-1][1] if groups else 0
        found.append(sum(paid) + price(full_of(counts, num_patches)) * sum(weights[served:]))
    return min(found) / len(counts)


def best_ladder(counts: Ints, buckets: int, num_patches: int) -> float:
    """The least mean cost of any ladder at all."""
    every = [s for s in product(range(num_patches + 1), repeat=counts.shape[1]) if sorted(s)[::-1] == list(s)]
    full = full_of(counts, num_patches)
    return min(
        sum(min(price(s) for s in (*chosen, full) if fits(image, s)) for image in counts.tolist())
        / len(counts)
        for chosen in combinations(every, buckets - 1)
    )


def best_table(counts: Ints, lead_step: int, schedules: Sequence[Schedule], again: float) -> float:
    """The least mean cost of any rising table for given schedules."""
    num_patches = schedules[-1][0]
    every = combinations_with_replacement(range(-1, num_patches + 1), len(schedules) - 1)  # -1 serves nobody
    tables = [(*table, num_patches) for table in every]
    return min(by_hand_predicted(counts, lead_step, schedules, table, again).expected for table in tables)


def by_hand_exact(counts: Ints, schedules: Sequence[Schedule]) -> Ladder:
    """`evaluate_exact`, image by image."""
    served, paid = [0] * len(schedules), 0.0
    for image in counts.tolist():
        choice = min((price(s), j) for j, s in enumerate(schedules) if fits(image, s))
        paid += choice[0]
        served[choice[1]] += 1
    shares = tuple(number / len(counts) for number in served)
    return Ladder(tuple(schedules), None, paid / len(counts), shares, 0.0)


def by_hand_predicted(
    counts: Ints, lead_step: int, schedules: Sequence[Schedule], upto: Sequence[int], again: float
) -> Ladder:
    """`evaluate_predicted`, image by image."""
    served, overflows, paid = [0] * len(schedules), 0, 0.0
    for image in counts.tolist():
        j = next(j for j, bound in enumerate(upto) if image[lead_step] <= bound)
        served[j] += 1
        paid += price(schedules[j])
        if not fits(image, schedules[j]):
            overflows += 1
            paid += again
    shares = tuple(number / len(counts) for number in served)
    return Ladder(tuple(schedules), tuple(upto), paid / len(counts), shares, overflows / len(counts))


def check_sound(ladder: Ladder, buckets: int, num_patches: int) -> None:
    """What holds for every ladder that is fitted."""
    prices = [price(schedule) for schedule in ladder.schedules]
    assert 1 <= len(ladder.schedules) <= buckets
    assert prices == sorted(prices) and len(set(ladder.schedules)) == len(ladder.schedules)
    assert set(ladder.schedules[-1]) == {num_patches}
    assert all(list(schedule) == sorted(schedule, reverse=True) for schedule in ladder.schedules)
    assert all(type(capacity) is int for schedule in ladder.schedules for capacity in schedule)
    assert all(share > 0 for share in ladder.shares[:-1])
    assert abs(sum(ladder.shares) - 1) < 1e-12  # a sum of at most a few quotients


# --- dispatch


def test_assign_takes_the_cheapest_that_fits_and_the_first_of_equals() -> None:
    schedules = [(4, 1), (2, 2), (2, 2), (4, 4)]
    counts = np.asarray([[4, 1], [2, 2], [3, 2], [0, 0]])
    assert assign(counts, schedules, np.asarray([5.0, 4.0, 4.0, 9.0])).tolist() == [0, 1, 3, 1]


def test_assign_needs_a_schedule_for_every_image() -> None:
    with pytest.raises(ConfigError, match=r"got \[\(1,\)\], expected one that fits each image"):
        assign(np.asarray([[1], [2]]), [(1,)], np.asarray([1.0]))


def test_predict_takes_the_first_bound_that_is_not_exceeded() -> None:
    assert predict(np.asarray([0, 3, 4, 5, 9]), (3, 3, 4, 9)).tolist() == [0, 0, 2, 3, 3]


@MANY
@given(case=cases(), data=st.data())
def test_evaluate_exact_agrees_with_a_plain_loop(case: tuple[Ints, int], data: st.DataObject) -> None:
    counts, num_patches = case
    schedules = data.draw(ladders(num_patches, counts.shape[1]))
    assert evaluate_exact(counts, schedules, macs) == by_hand_exact(counts, schedules)


@MANY
@given(case=routed_cases(), data=st.data())
def test_evaluate_predicted_agrees_with_a_plain_loop(
    case: tuple[Ints, int, int], data: st.DataObject
) -> None:
    counts, num_patches, lead_step = case
    schedules = data.draw(ladders(num_patches, counts.shape[1]))
    bound = st.lists(st.integers(0, num_patches), min_size=len(schedules) - 1, max_size=len(schedules) - 1)
    upto = [*sorted(data.draw(bound)), num_patches]
    again = again_of(counts, num_patches)
    expected = by_hand_predicted(counts, lead_step, schedules, upto, again)
    assert evaluate_predicted(counts, lead_step, schedules, upto, macs, again) == expected


# --- the bucket is chosen exactly


@MANY
@given(pieces=st.integers(1, 6), groups=st.integers(0, 7), seed=st.integers(0, 10_000))
def test_partings_are_the_best_of_all(pieces: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prices = np.triu(rng.integers(1, 50, size=(pieces, pieces + 1)).astype(float), k=1)
    prices[prices == 0] = np.inf
    left = np.append(np.sort(rng.integers(1, 90, size=pieces))[::-1], 0).astype(float)

    def paid(spans: list[tuple[int, int]]) -> float:
        return sum(prices[a, b] for a, b in spans) + left[spans[-1][1] if spans else 0]

    found = list(search.partings(prices, left, groups))
    assert [len(spans) for spans in found] == list(range(min(groups, pieces) + 1))
    for number, spans in enumerate(found):
        assert all(a < b for a, b in spans)
        assert paid(spans) == min(paid(every) for every in partings(pieces, groups) if len(every) == number)


def test_buckets_without_images_are_dropped_but_not_full() -> None:
    ladder = Ladder(((1,), (2,), (4,)), (1, 2, 4), 1.5, (0.0, 1.0, 0.0), 0.0)
    assert search.without_idle(ladder) == Ladder(((2,), (4,)), (2, 4), 1.5, (1.0, 0.0), 0.0)
    assert search.without_idle(replace(ladder, upto=None)).upto is None


def test_schedules_that_are_not_cheaper_than_full_are_dropped() -> None:
    images = gather(np.array([[8, 2], [4, 4]]), 8)
    schedules = [np.array(schedule) for schedule in ([8, 2], [4, 4], [8, 2], [6, 1])]

    def cost(table: Ints) -> Any:  # [8, 2] costs as much as full
        return np.where(table[:, 0] == 8, 10.0, table.sum(axis=1))

    assert search.in_order(images, schedules, cost) == [(6, 1), (4, 4), (8, 8)]


@MANY
@given(case=cases(), buckets=st.integers(1, 4))
def test_the_dynamic_program_finds_the_best_parting(case: tuple[Ints, int], buckets: int) -> None:
    counts, num_patches = case
    rows, weights = np.unique(counts, axis=0, return_counts=True)
    order = np.argsort(macs(rows), kind="stable")
    images = Images(rows[order], weights[order], num_patches)
    prices, left = exact._envelope_prices(images, np.arange(len(rows) + 1), macs)
    paid = [
        sum(prices[a, b] for a, b in spans) + left[spans[-1][1] if spans else 0]
        for spans in search.partings(prices, left, buckets - 1)
    ]
    assert min(paid) / len(counts) == best_parting(counts, buckets, num_patches)


@MANY
@given(case=cases(), buckets=st.integers(1, 4))
def test_exact_is_never_worse_than_the_best_parting(case: tuple[Ints, int], buckets: int) -> None:
    counts, num_patches = case
    expected = fit_exact(counts, buckets, macs, num_patches).expected
    assert expected <= best_parting(counts, buckets, num_patches)


@given(case=cases(most=3, images=5), buckets=st.integers(1, 3))
def test_exact_never_claims_more_than_is_possible(case: tuple[Ints, int], buckets: int) -> None:
    counts, num_patches = case
    expected = fit_exact(counts, buckets, macs, num_patches).expected
    assert expected >= best_ladder(counts, buckets, num_patches)


@MANY
@given(case=cases(images=20), buckets=st.integers(1, 5))
def test_exact_ladders_are_sound(case: tuple[Ints, int], buckets: int) -> None:
    counts, num_patches = case
    ladder = fit_exact(counts, buckets, macs, num_patches)
    check_sound(ladder, buckets, num_patches)
    assert ladder == by_hand_exact(counts, ladder.schedules)
    assert (ladder.upto, ladder.overflow) == (None, 0)
    chosen = assign(counts, ladder.schedules, macs(np.asarray(ladder.schedules)))
    assert (counts <= np.asarray(ladder.schedules)[chosen]).all()


@given(case=cases(images=20))
def test_one_more_exact_bucket_never_costs_more(case: tuple[Ints, int]) -> None:
    counts, num_patches = case
    expected = [fit_exact(counts, buckets, macs, num_patches).expected for buckets in range(1, 7)]
    assert expected == sorted(expected, reverse=True)
    assert expected[0] == price(full_of(counts, num_patches))


def test_as_many_buckets_as_images_cost_what_the_images_cost() -> None:
    counts = many_images(8)
    assert fit_exact(counts, 9, macs, 64).expected == macs(counts).mean()


def test_two_clusters_get_two_exact_buckets() -> None:
    counts = np.asarray([[3, 1], [2, 2], [3, 2], [9, 5], [8, 6]] * 2)
    ladder = fit_exact(counts, 3, steps, 10)
    assert ladder == Ladder(((3, 2), (9, 6), (10, 10)), None, (6 * 5 + 4 * 15) / 10, (0.6, 0.4, 0.0), 0.0)


def test_descent_leaves_an_odd_image_to_full() -> None:
    """In the order of cost [5, 0] stands among the others and would widen their envelope."""
    counts = np.asarray([[2, 2]] * 20 + [[5, 0]] + [[3, 3]] * 20)
    ladder = fit_exact(counts, 2, steps, 6)
    assert ladder.schedules == ((3, 3), (6, 6)) and ladder.shares == (40 / 41, 1 / 41)


# --- the bucket is predicted


@MANY
@given(case=routed_cases(images=20), buckets=st.integers(1, 4))
def test_predicted_ladders_are_sound(case: tuple[Ints, int, int], buckets: int) -> None:
    counts, num_patches, lead_step = case
    again = again_of(counts, num_patches)
    ladder = fit_predicted(counts, lead_step, buckets, macs, again, num_patches)
    check_sound(ladder, buckets, num_patches)
    assert ladder.upto is not None and ladder.upto[-1] == num_patches
    assert list(ladder.upto) == sorted(ladder.upto) and len(ladder.upto) == len(ladder.schedules)
    assert all(set(schedule[:lead_step]) <= {num_patches} for schedule in ladder.schedules)
    assert ladder == by_hand_predicted(counts, lead_step, ladder.schedules, ladder.upto, again)
    assert ladder.expected <= price(full_of(counts, num_patches))


@given(case=routed_cases(images=12))
def test_one_more_predicted_bucket_never_costs_more(case: tuple[Ints, int, int]) -> None:
    counts, num_patches, lead_step = case
    again = again_of(counts, num_patches)
    expected = [fit_predicted(counts, lead_step, b, macs, again, num_patches).expected for b in range(1, 6)]
    assert expected == sorted(expected, reverse=True)
    assert expected[0] == price(full_of(counts, num_patches))


@MANY
@given(case=routed_cases(), data=st.data())
def test_the_table_is_the_best_for_its_schedules(case: tuple[Ints, int, int], data: st.DataObject) -> None:
    counts, num_patches, lead_step = case
    schedules = data.draw(ladders(num_patches, counts.shape[1]))
    again = again_of(counts, num_patches)
    images = gather(counts, num_patches, lead_step)
    ladder = predicted._tabled(images, lead_step, list(map(np.asarray, schedules)), macs, again)
    assert ladder.expected == best_table(counts, lead_step, schedules, again)


@given(case=routed_cases(), buckets=st.integers(1, 4))
def test_no_other_table_is_better(case: tuple[Ints, int, int], buckets: int) -> None:
    counts, num_patches, lead_step = case
    again = again_of(counts, num_patches)
    ladder = fit_predicted(counts, lead_step, buckets, macs, again, num_patches)
    assert ladder.expected == best_table(counts, lead_step, ladder.schedules, again)


@given(case=routed_cases(), buckets=st.integers(1, 4))
def test_no_single_capacity_is_better(case: tuple[Ints, int, int], buckets: int) -> None:
    counts, num_patches, lead_step = case
    again = again_of(counts, num_patches)
    ladder = fit_predicted(counts, lead_step, buckets, macs, again, num_patches)
    assert ladder.upto is not None
    for j, schedule in enumerate(ladder.schedules[:-1]):
        for step, capacity in product(range(lead_step, len(schedule)), range(num_patches + 1)):
            other = (*schedule[:step], capacity, *schedule[step + 1 :])
            schedules = [*ladder.schedules[:j], other, *ladder.schedules[j + 1 :]]
            changed = by_hand_predicted(counts, lead_step, schedules, ladder.upto, again)
            assert ladder.expected <= changed.expected


def test_two_clusters_get_two_predicted_buckets() -> None:
    counts = np.asarray([[3, 1], [2, 2], [3, 2], [9, 5], [8, 6]] * 2)
    ladder = fit_predicted(counts, 0, 3, steps, 20.0, 10)
    assert ladder == Ladder(((3, 2), (9, 6), (10, 10)), (3, 9, 10), 9.0, (0.6, 0.4, 0.0), 0.0)


def test_a_rare_image_overflows_when_that_is_cheaper() -> None:
    """Its lead is that of the others: nothing tells it apart before its second step."""
    counts = np.asarray([[4, 1]] * 99 + [[4, 4]])
    ladder = fit_predicted(counts, 0, 2, steps, 20.0, 10)
    assert ladder.schedules == ((4, 1), (10, 10)) and ladder.upto == (4, 10)
    assert ladder.overflow == 0.01 and ladder.shares == (1.0, 0.0)
    assert ladder.expected == 5 + 20 / 100
    dear = fit_predicted(counts, 0, 2, steps, 1e6, 10)
    assert dear.schedules == ((4, 4), (10, 10)) and dear.overflow == 0


def test_descent_finds_what_the_table_alone_does_not() -> None:
    """The optimal table of the first schedules has two buckets, [7, 5, 4] among them, and costs 274."""
    counts = np.asarray([[5, 3, 2], [6, 5, 4], [8, 6, 4], [7, 3, 2], [8, 8, 5], [6, 5, 4]])
    ladder = fit_predicted(counts, 0, 4, macs, again_of(counts, 8), 8)
    assert ladder.schedules == ((5, 3, 2), (6, 5, 4), (8, 8, 5), (8, 8, 8))
    assert ladder.upto == (5, 6, 8, 8) and ladder.expected == pytest.approx(267 + 1 / 3)


def test_what_overflows_holds_no_capacity_up() -> None:
    """The odd image overflows for its second step; its third must not cost the others anything."""
    counts = np.asarray([[6, 2, 1]] * 50 + [[6, 6, 5]])
    ladder = fit_predicted(counts, 0, 2, steps, 30.0, 10)
    assert ladder.schedules[0] == (6, 2, 1) and ladder.overflow == 1 / 51


def test_steps_before_the_lead_keep_every_token() -> None:
    counts = np.asarray([[9, 2, 1], [9, 3, 1], [9, 8, 8]])
    ladder = fit_predicted(counts, 1, 3, steps, 27.0, 9)
    assert ladder.schedules == ((9, 3, 1), (9, 8, 8), (9, 9, 9)) and ladder.upto == (3, 8, 9)


# --- both


Fit = Callable[[Ints, int, int], Ladder]


def exactly(counts: Ints, buckets: int, num_patches: int) -> Ladder:
    return fit_exact(counts, buckets, macs, num_patches)


def by_lead(counts: Ints, buckets: int, num_patches: int) -> Ladder:
    return fit_predicted(counts, 0, buckets, macs, again_of(counts, num_patches), num_patches)


both = pytest.mark.parametrize("fit", [exactly, by_lead])


@both
@given(case=cases(images=20), buckets=st.integers(1, 4), copies=st.integers(1, 5), data=st.data())
def test_order_and_repetition_of_the_images_change_nothing(
    fit: Fit, case: tuple[Ints, int], buckets: int, copies: int, data: st.DataObject
) -> None:
    counts, num_patches = case
    shuffled = counts[data.draw(st.permutations(range(len(counts))))]
    assert fit(np.repeat(shuffled, copies, axis=0), buckets, num_patches) == fit(counts, buckets, num_patches)


@both
@pytest.mark.parametrize(
    "counts",
    [
        np.asarray([[5, 2, 1]] * 9),
        np.full((4, 3), 6),
        np.zeros((4, 3), dtype=int),
        np.asarray([[4, 3, 0]]),
        np.asarray([[0], [3], [6], [2]]),
        np.asarray([[6, 6, 6], [0, 0, 0]]),
        np.asarray([[3, 2, 1]], dtype=np.uint8),
    ],
    ids=["identical", "all run", "none runs", "one image", "one step", "extremes", "uint8"],
)
def test_degenerate_images(fit: Fit, counts: Ints) -> None:
    for buckets in (1, 2, 9):
        ladder = fit(counts, buckets, 6)
        check_sound(ladder, buckets, 6)
        assert ladder.overflow == 0
    assert ladder.expected == macs(counts).mean()


@both
def test_nothing_is_left_when_all_tokens_always_run(fit: Fit) -> None:
    ladder = fit(np.full((5, 2), 6), 4, 6)
    assert ladder.schedules == ((6, 6),) and ladder.shares == (1.0,)
    assert ladder.upto in (None, (6,))


@both
@pytest.mark.parametrize("most", [1, 2, 7])
def test_fewer_cuts_still_cover_every_image(fit: Fit, most: int) -> None:
    counts = many_images(200)
    with patch.object(exact, "MAX_CUTS", most), patch.object(predicted, "MAX_LEADS", most):
        ladders = [fit(counts, buckets, 64) for buckets in range(1, 5)]
    expected = [ladder.expected for ladder in ladders]
    assert expected == sorted(expected, reverse=True)
    check_sound(ladders[-1], 4, 64)
    assert ladders[-1].upto is not None or ladders[-1] == by_hand_exact(counts, ladders[-1].schedules)


@pytest.mark.parametrize(("positions", "most"), [(1, 1), (1, 9), (7, 7), (8, 7), (20_000, 1024)])
def test_cuts_bound_at_most_so_many_pieces(positions: int, most: int) -> None:
    bounds = search.cuts(positions, most)
    assert bounds[0] == 0 and bounds[-1] == positions and (np.diff(bounds) > 0).all()
    assert len(bounds) - 1 <= most
    assert len(bounds) - 1 == positions or positions > most


@both
def test_many_images(fit: Fit) -> None:
    """More distinct counts than cuts, and most of what a ladder can save."""
    counts = many_images(3000)
    assert len(np.unique(counts, axis=0)) > exact.MAX_CUTS
    ladder = fit(counts, 4, 64)
    check_sound(ladder, 4, 64)
    full, own = price((64,) * 6), macs(counts).mean()
    assert len(ladder.schedules) == 4 and ladder.expected < own + 0.25 * (full - own)
    assert ladder.overflow < 0.05


def test_knowing_beats_predicting() -> None:
    counts = many_images(1000)
    for buckets in (2, 3, 4):
        assert exactly(counts, buckets, 64).expected < by_lead(counts, buckets, 64).expected


def test_a_cost_in_milliseconds_is_as_good() -> None:
    """Flat where a device does not care: what costs no less is of no use."""

    def milliseconds(schedules: Ints) -> Any:
        return np.ceil(np.asarray(schedules) / 4).sum(axis=1) * 0.3 + 0.1

    counts = many_images(500)
    ladder = fit_exact(counts, 4, milliseconds, 64)
    prices = [price(schedule, milliseconds) for schedule in ladder.schedules]
    assert prices == sorted(set(prices))
    assert ladder == evaluate_exact(counts, ladder.schedules, milliseconds)
    assert fit_exact(np.asarray([[3, 3], [4, 4]]), 5, milliseconds, 4).schedules == ((4, 4),)


# --- how many buckets


def ladder_costing(expected: float) -> Ladder:
    return Ladder(((1,),), None, expected, (1.0,), 0.0)


@pytest.mark.parametrize(
    ("expected", "gain", "chosen"),
    [
        ([100, 50, 45, 44.5, 44.4], 0.02, 2),
        ([100, 50, 45, 44.5, 44.4], 0.2, 1),
        ([100, 50, 45, 44.5, 44.4], 0.001, 4),
        ([100, 50, 49, 40], 0.02, 3),
        ([100, 99, 20], 0.02, 0),
        ([100], 0.02, 0),
        ([0, 0, 0], 0.02, 0),
        ([5, 5], 0.0, 0),
    ],
)
def test_choose_buckets(expected: list[float], gain: float, chosen: int) -> None:
    fits = [replace(ladder_costing(value), overflow=i / 10) for i, value in enumerate(expected)]
    assert choose_buckets(fits, gain) is fits[chosen]


def test_choose_buckets_needs_ladders() -> None:
    with pytest.raises(ConfigError, match="ladders: got none, expected one for each number"):
        choose_buckets([])


# --- bad input


@both
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.empty((0, 3), dtype=int), r"got int64 \(0, 3\), expected integers \(images, steps\)"),
        (np.empty((3, 0), dtype=int), r"got int64 \(3, 0\)"),
        (np.asarray([3, 2]), r"got int64 \(2,\)"),
        (np.asarray([[3.0, 2.0]]), r"got float64 \(1, 2\), expected integers"),
        (np.asarray([[3, 2], [2, 3]]), r"got \[2, 3\] for image 1, expected no step to run more .*1 of 2"),
        (np.asarray([[3, 2], [9, 3]]), r"got \[9, 3\] for image 1, expected 0 … 6 in each step"),
        (np.asarray([[3, -1]]), r"got \[3, -1\] for image 0, expected 0 … 6"),
    ],
    ids=["no images", "no steps", "one axis", "floats", "rising", "above N", "below 0"],
)
def test_bad_counts(fit: Fit, counts: Ints, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^counts: {message}"):
        fit(counts, 2, 6) if counts.ndim == 2 and fit is by_lead else fit_exact(counts, 2, macs, 6)


@both
@pytest.mark.parametrize("buckets", [0, -1])
def test_bad_bucket_numbers(fit: Fit, buckets: int) -> None:
    with pytest.raises(ConfigError, match=f"buckets: got {buckets}, expected at least 1"):
        fit(np.asarray([[1, 1]]), buckets, 6)


@pytest.mark.parametrize("lead_step", [-1, 2])
def test_bad_lead_steps(lead_step: int) -> None:
    with pytest.raises(ConfigError, match=f"lead_step: got {lead_step}, expected 0 … 1"):
        fit_predicted(np.asarray([[1, 1]]), lead_step, 2, macs, 1.0, 6)


def test_tokens_missing_before_the_first_routed_step() -> None:
    with pytest.raises(
        ConfigError, match=r"got \[5, 1\] for image 1, expected 6 in each of the 1 steps before"
    ):
        fit_predicted(np.asarray([[6, 1], [5, 1]]), 1, 2, macs, 1.0, 6)


@pytest.mark.parametrize("again", [-1.0, np.nan, np.inf])
def test_bad_prices_of_a_second_run(again: float) -> None:
    with pytest.raises(ConfigError, match=r"again: got .* expected the cost of a second run"):
        fit_predicted(np.asarray([[1, 1]]), 0, 2, macs, again, 6)


@pytest.mark.parametrize("wrong", [lambda s: 3.0, lambda s: np.full(len(s), np.nan)], ids=["scalar", "nan"])
def test_bad_costs(wrong: Cost) -> None:
    with pytest.raises(ConfigError, match=r"cost: got .* expected a finite number for each of"):
        fit_exact(np.asarray([[1, 1]]), 2, wrong, 6)


@pytest.mark.parametrize(
    "schedules", [[], [(1, 1), (6, 5)], [(1,), (6, 6)]], ids=["none", "no full", "uneven"]
)
def test_bad_schedules(schedules: list[Schedule]) -> None:
    with pytest.raises(ConfigError, match=r"schedules: got .* all tokens at every step of the last one"):
        evaluate_exact(np.asarray([[1, 1]]), schedules, macs)


@pytest.mark.parametrize("upto", [(3,), (4, 3, 6), (1, 2, 5)], ids=["too few", "falling", "last is not N"])
def test_bad_tables(upto: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"upto: got .*, expected 3 ascending bounds, the last 6"):
        evaluate_predicted(np.asarray([[1, 1]]), 0, [(1, 1), (2, 2), (6, 6)], upto, macs, 1.0)


def test_the_descent_drops_an_outlier_of_each_step() -> None:
    wide, tall = [16, 1], [7, 7]
    counts = np.array([[8, 2]] * 10 + [wide, tall])

    def bill(costs: Floats, order: NDArray[np.intp], ends: NDArray[np.intp]) -> Floats:
        return costs * (ends + 1) + 30.0 * (len(counts) - ends - 1)  # 30 for an image that does not fit

    found = search.descended(
        counts, np.array([16, 7]), lambda schedules: schedules.sum(axis=1).astype(float), bill
    )
    assert found.tolist() == [8, 2]
