"""Pictures at the bounds of buckets: which counts are looked for, and that the search finds them."""

from __future__ import annotations

import numpy as np
from adaptive_plans import depth_plan, threshold_plan
from bucket_plans import EXPERT, TOKEN
from numpy.typing import NDArray

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.verifying.edges import Count, Edge, Pool, edges_of

PATCHES = 16


def tokens_of(pictures: Pixels) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A model by hand: bright rows run step 1, brighter ones step 2, the brightest step 3; all are clear."""
    rows = pictures.mean(axis=(2, 3))
    counts = [(rows >= level).sum(axis=1) for level in (80, 120, 160)]
    return np.stack(counts, axis=1), np.ones(len(pictures), dtype=bool)


def noise(count: int, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 256, (count, PATCHES, 1, 1))
    return np.clip(levels + rng.integers(-9, 10, (count, PATCHES, 8, 3)), 0, 255).astype(np.uint8)


def test_two_counts_for_each_capacity_and_bound() -> None:
    plan = threshold_plan(EXPERT, (0.0, 0.0, 0.0), [(4, 4, 1), (8, 6, 2)], upto=(4, 8))
    found = {(edge.bucket, edge.step, edge.tokens, edge.limits) for edge in edges_of(plan, PATCHES)}
    everyone = (16, 16, 16)
    assert found == {
        (0, 0, 4, (4, 4, 1)), (0, 0, 5, (16, 4, 1)),  # and no second step, at which none may leave
        (0, 2, 1, (4, 4, 1)), (0, 2, 2, (4, 4, 4)),
        (0, 0, 4, everyone), (0, 0, 5, everyone),  # the dispatch table's
        (1, 0, 8, (8, 6, 2)), (1, 0, 9, (16, 6, 2)),
        (1, 1, 6, (8, 6, 2)), (1, 1, 7, (8, 8, 2)),
        (1, 2, 2, (8, 6, 2)), (1, 2, 3, (8, 6, 6)),
        (1, 0, 8, everyone), (1, 0, 9, everyone),
    }  # fmt: skip  # by bucket and step


def test_steps_without_a_threshold_have_no_bounds() -> None:
    plan = threshold_plan(EXPERT, (None, 0.0, 0.0), [(16, 6, 2)], upto=(6,))
    assert {edge.step for edge in edges_of(plan, PATCHES)} == {1, 2}
    assert {edge.tokens for edge in edges_of(plan, PATCHES)} == {6, 7, 2, 3}


def test_depths_have_no_dispatch_table() -> None:
    found = edges_of(depth_plan(TOKEN, [(16, 9, 4)]), PATCHES)
    assert [(edge.step, edge.tokens) for edge in found] == [(1, 9), (1, 10), (2, 4), (2, 5)]


def test_a_bound_that_no_image_can_pass_is_left_out() -> None:
    plan = threshold_plan(EXPERT, (0.0, 0.0, 0.0), [(16, 16, 16)], upto=(16,))
    assert [(edge.step, edge.tokens) for edge in edges_of(plan, PATCHES)] == [(0, 16)]


def test_no_token_at_all_is_an_edge_too() -> None:
    plan = threshold_plan(EXPERT, (0.0, 0.0, 0.0), [(1, 1, 1)], upto=(0,))
    assert Edge(0, 0, 0, (16, 16, 16)) in edges_of(plan, PATCHES)


def test_an_edge_holds_for_its_count_within_the_limits() -> None:
    edge = Edge(0, 1, 3, (5, 3, 2))
    counts = np.array([[5, 3, 2], [5, 3, 3], [6, 3, 1], [5, 2, 1], [4, 4, 1]])
    assert edge.holds(counts).tolist() == [True, False, False, False, False]
    assert edge.over(counts).tolist() == [False, True, True, False, True]


def test_blends_reach_what_no_picture_has() -> None:
    pool = Pool(tokens_of, budget=60)
    pool.add(np.stack([np.zeros((16, 8, 3), np.uint8), np.full((16, 8, 3), 255, np.uint8)]))
    assert pool.find(Edge(0, 0, 7, (16, 16, 16))) == [], "all rows of a flat picture are alike"
    pool.add(noise(2))
    for tokens in (3, 7, 12):
        found = pool.find(Edge(0, 0, tokens, (16, 16, 16)))
        assert found and tokens_of(pool.pictures[found[0]][None])[0][0, 0] == tokens


def test_the_search_ends_with_its_budget() -> None:
    pool = Pool(tokens_of, budget=3)
    pool.add(noise(5))
    assert len(pool.pictures) == 3 and pool.budget == 0
    assert pool.find(Edge(0, 2, 16, (16, 16, 16))) == []
    assert Pool(tokens_of, budget=0).find(Edge(0, 0, 1, (16, 16, 16))) == []


def test_pictures_that_round_off_could_change_are_not_taken() -> None:
    pool = Pool(lambda pictures: (tokens_of(pictures)[0], np.zeros(len(pictures), dtype=bool)), budget=40)
    pool.add(noise(8))
    assert pool.find(Edge(0, 0, int(pool.counts[0][0]), (16, 16, 16))) == []


def test_the_search_goes_on_after_a_picture_that_is_not_clear() -> None:
    met = []

    def unclear_at_first(pictures: Pixels) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        counts, clear = tokens_of(pictures)
        if len(pictures) == 1 and counts[0, 0] == 7 and not met:
            met.append(pictures)
            clear[:] = False
        return counts, clear

    pool = Pool(unclear_at_first, budget=200)
    pool.add(np.stack([noise(1)[0], np.zeros((16, 8, 3), np.uint8), np.full((16, 8, 3), 255, np.uint8)]))
    assert pool.find(Edge(0, 0, 7, (16, 16, 16))) and met


def flat(*levels: int) -> Pixels:
    """Pictures of one gray level each."""
    return np.array(levels, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)


def levels_of(pool: Pool) -> list[int]:
    return [int(picture.max()) for picture in pool.pictures]


def pool_of(count: Count, budget: int = 99) -> Pool:
    """Four pictures with 2, 6, 8 and 16 tokens at step 1."""
    pool = Pool(count, budget)
    pool.keep(flat(10, 60, 100, 200), np.array([[2, 1], [6, 1], [8, 1], [16, 1]]), np.ones(4, dtype=bool))
    return pool


def by_level(pictures: Pixels) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A token at step 1 for 12 levels, one at step 2."""
    tokens = pictures.max(axis=(1, 2, 3)).astype(np.int64) // 12
    return np.stack([tokens, np.ones_like(tokens)], axis=1), np.ones(len(pictures), dtype=bool)


def test_the_closest_pictures_are_blended_first() -> None:
    pool = pool_of(by_level)
    assert pool.find(Edge(0, 0, 7, (16, 1))) == [5]
    assert levels_of(pool)[4:] == [80, 90], "between 60 and 100, then nearer to 100"
    assert pool.budget == 97
    assert pool.find(Edge(0, 0, 7, (16, 1))) == [5] and pool.budget == 97, "found is found"


def test_the_next_pairs_are_tried_in_order() -> None:
    """Where no blend is at the edge: 60 and 100, 60 and 200, 10 and 100, and no further pair."""

    def never(pictures: Pixels) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        return np.array([[6, 1]] * len(pictures)), np.ones(len(pictures), dtype=bool)

    pool = pool_of(never)
    assert pool.find(Edge(0, 0, 7, (16, 1))) == []
    first = [80, 90, 95, 97, 98, 99]
    second = [130, 165, 182, 191, 195, 197, 198, 199]
    third = [55, 77, 88, 94, 97, 98, 99]
    assert levels_of(pool)[4:] == first + second + third


def test_pictures_with_too_many_tokens_elsewhere_come_last() -> None:
    edge = Edge(0, 0, 7, (16, 2))
    pool = Pool(by_level, 99)
    pool.keep(flat(10, 60, 100, 200), np.array([[2, 1], [6, 5], [8, 5], [16, 1]]), np.ones(4, dtype=bool))
    assert pool.find(edge) and levels_of(pool)[4] == (10 + 200) // 2
    assert edge.beyond(np.array([[7, 5], [7, 2], [20, 1]])).tolist() == [3, 0, 0]
