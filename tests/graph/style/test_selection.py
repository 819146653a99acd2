"""Ranking and taking tokens, by gathers and by one-hot products, against a stable sort; float64, ties included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from morvit_deploy.graph.maths.layouts import BC1S, BSD, RowLayout, mixed
from morvit_deploy.graph.style.one_hot import OneHot, OneHotChannels
from morvit_deploy.graph.style.selection import HIGHEST, LOWEST, Gathers, OneGather

WHOLE = torch.float64
seeds = st.integers(0, 10**6)
scores_with_ties = st.lists(
    st.sampled_from([-1.5, -0.25, 0.0, 0.25, 3.0, LOWEST]) | st.floats(-9, 9, width=16),
    min_size=1,
    max_size=40,
)
LAYOUTS = [BSD, BC1S]


def numbers_in(layout: RowLayout, values: Tensor) -> Tensor:
    return values if layout is BSD else values[None, None, None]


def one_hot(layout: RowLayout) -> OneHot:
    return OneHot(layout, WHOLE) if layout is BSD else OneHotChannels(layout, WHOLE)


def states(seed: int, layout: RowLayout, n: int, dim: int = 5) -> tuple[Tensor, Tensor]:
    """Rows (n, dim), and the same in a layout."""
    rows = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=WHOLE)
    return rows, layout.constant(rows)


def positions(order: Tensor) -> list[int]:
    """Of a one-hot order of either layout."""
    return order.argmax(dim=1).flatten().tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
@given(scores=scores_with_ties, data=st.data())
def test_a_one_hot_order_is_the_stable_sort(
    layout: RowLayout, scores: list[float], data: st.DataObject
) -> None:
    z = torch.tensor(scores, dtype=WHOLE)
    k = data.draw(st.integers(1, len(scores)))
    valued = data.draw(st.integers(1, k))
    sorted_, wanted = torch.sort(z, descending=True, stable=True)
    values, order = one_hot(layout).rank(numbers_in(layout, z), k, valued)
    assert positions(order) == wanted[:k].tolist()
    assert order.sum() == k  # one 1 for each of the k best, zeros besides
    assert values.flatten().tolist() == sorted_[:valued].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=seeds, n=st.integers(1, 40), data=st.data())
def test_both_ways_rank_alike_without_ties(layout: RowLayout, seed: int, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    z = numbers_in(layout, torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=WHOLE))
    values, indices = OneGather(layout).rank(z, k, k)
    others, order = one_hot(layout).rank(z, k, k)
    assert positions(order) == indices.flatten().tolist()
    assert torch.equal(values, others)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(depth=st.lists(st.integers(1, 12), min_size=1, max_size=60))
def test_by_depth_is_stable(layout: RowLayout, depth: list[int]) -> None:
    expected = sorted(range(len(depth)), key=lambda token: (-depth[token], token))
    given_ = numbers_in(layout, torch.tensor(depth))
    assert OneGather(layout).by_depth(given_).flatten().tolist() == expected
    assert positions(one_hot(layout).by_depth(given_)) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", ["gather", "onehot"])
@given(seed=seeds, n=st.integers(1, 12), both=st.booleans(), data=st.data())
def test_partition(layout: RowLayout, way: str, seed: int, n: int, both: bool, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    rows, h = states(seed, layout, n + 1)
    z = torch.randn(n, generator=torch.Generator().manual_seed(seed + 1), dtype=WHOLE)
    selection = OneGather(layout) if way == "gather" else one_hot(layout)
    wanted = torch.sort(z, descending=True).indices
    order = selection.rank(numbers_in(layout, z), n, 0)[1]
    kept, leavers = selection.partition(h, order, k, both)
    assert torch.equal(kept, layout.constant(torch.cat([rows[:1], rows[1:][wanted[:k]]])))
    assert (leavers is None) == (k == n or not both)
    if leavers is not None:
        assert torch.equal(leavers, layout.constant(rows[1:][wanted[k:]]))
    everyone = selection.rank(numbers_in(layout, torch.cat([z, z[:1] - 20])), n + 1, 0)[1]
    first, rest = selection.partition_all(h, everyone, k)
    moved = rows[torch.cat([wanted, torch.tensor([n])])]
    assert torch.equal(first, layout.constant(moved[:k]))
    assert torch.equal(rest, layout.constant(moved[k:]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", ["gather", "onehot"])
@given(seed=seeds, n=st.integers(1, 30))
def test_back_undoes_an_order(layout: RowLayout, way: str, seed: int, n: int) -> None:
    numbers = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    selection = OneGather(layout) if way == "gather" else one_hot(layout)
    who = numbers_in(layout, numbers if way == "gather" else numbers.to(WHOLE))
    ran = torch.arange(n) % 7
    wanted = torch.empty_like(ran).index_copy(0, numbers, ran)
    assert selection.back(numbers_in(layout, ran), who).flatten().tolist() == wanted.tolist()
    assert selection.back_from(ran, who).flatten().tolist() == wanted.tolist()
    rows, h = states(seed, layout, n)
    row = selection.lowest_number(who)
    assert torch.equal(selection.rows(h, row), layout.constant(rows[numbers.argmin()][None]))


@given(seed=seeds, k=st.integers(1, 5), n=st.integers(1, 5))
def test_mixed_is_a_product_of_columns(seed: int, k: int, n: int) -> None:
    rows, columns = states(seed, BC1S, n)
    weights = torch.randn(k, n, generator=torch.Generator().manual_seed(seed + 1), dtype=WHOLE)
    found = mixed(columns, weights.T[None, :, None])
    assert (found[0, :, 0].T - weights @ rows).abs().max() <= 1e-12


def test_what_left_and_thresholds_beyond_reason_are_numbers_of_fp16() -> None:
    selection, half = OneGather(), torch.finfo(torch.float16)
    assert selection.lowest == LOWEST == half.min
    assert selection.threshold(1e30) == HIGHEST < half.max
    assert LOWEST < selection.threshold(-1e30) == -HIGHEST
    assert selection.threshold(0.3) == 0.3
    assert Gathers().threshold(1e30) == 1e30
