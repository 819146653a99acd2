"""Each of the six rewrites alone, as a pure function, against what it replaces; float64, random configurations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import EXACT, make_config, random_model
from torch import Tensor
from torch.nn import functional as F

from morvit_deploy.graph.maths import rewrites
from morvit_deploy.graph.maths.dispatch import key_mask
from morvit_deploy.graph.maths.rewrites import (
    KV,
    Affine,
    attend_states,
    cls_only,
    collect_heads,
    fold_norm,
    fold_pixels,
    fold_positions,
    fold_scale,
    frozen_keys,
    inverse,
    join,
    partition,
    partition_all,
    rank,
    spread_heads,
    take,
)
from morvit_deploy.graph.style.blocks import FusedBlock, Projections, StaticBlock
from morvit_deploy.model import decisions
from morvit_deploy.model.layers import Block

seeds = st.integers(0, 10**6)
heads = st.sampled_from([(8, 1), (12, 3), (16, 2), (16, 4)])  # dim, heads
batches = st.integers(1, 3)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blocks(seed: int, dim: int, num_heads: int, **changes: object) -> tuple[Block, StaticBlock]:
    """A trained block and the same block in parts."""
    config = make_config(embed_dim=dim, num_heads=num_heads, mlp_dim=dim + 3, **changes)
    block = random_model(config, seed, torch.float64).cycle[0]
    assert isinstance(block, Block)
    return block, StaticBlock(block, fold=bool(seed % 2), projections="apart")


def equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= EXACT)


# 1: top-k of fixed k ---------------------------------------------------------------------------------------


@given(seed=seeds, batch=batches, n=st.integers(1, 40), data=st.data())
def test_rank_names_the_references_tokens_best_first(
    seed: int, batch: int, n: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n))
    z = noise(seed, batch, n)
    values, order = rank(z, k)
    assert torch.equal(values, z.gather(1, order))
    assert bool((values[:, :-1] >= values[:, 1:]).all())
    for row, positions in zip(z, order, strict=True):
        assert torch.equal(positions.sort().values, decisions.top_k(row, k))


@given(seed=seeds, n=st.integers(1, 60), beta=st.floats(0.01, 0.99))
def test_rank_is_the_papers_percentile(seed: int, n: int, beta: float) -> None:
    """Tokens at or above the β-percentile of n distinct scores: their number is known from n and β alone."""
    z = noise(seed, 1, n)
    k = n - int(beta * n)
    threshold = z[0].sort().values[int(beta * n)]
    _, order = rank(z, k)
    assert sorted(order[0].tolist()) == torch.nonzero(z[0] >= threshold)[:, 0].tolist()


@pytest.fixture
def narrow_topk(monkeypatch: pytest.MonkeyPatch) -> None:
    """TopK ranks five at most, instead of thousands."""
    monkeypatch.setattr(rewrites, "MOST_RANKED", 5)


@pytest.mark.parametrize("k", [5, 6, 10, 11, 17])
def test_groups_rank_as_one_topk(narrow_topk: None, k: int) -> None:
    z = noise(k, 3, 17)
    z[:, 4] = float("-inf")  # a token that has left
    values, order = torch.topk(z, k, dim=-1)
    found, numbers = rank(z, k)
    assert (numbers == order).all()
    assert (found == values.clamp(min=torch.finfo(z.dtype).min)).all()


@pytest.mark.parametrize("equal", [0.0, float("-inf"), float("inf")])
def test_groups_rank_each_of_equal_scores_once(narrow_topk: None, equal: float) -> None:
    order = rank(torch.full((2, 13), equal), 13)[1]
    assert (order.sort(dim=-1).values == torch.arange(13)).all()


def test_inverse_sorts_any_number_of_tokens(narrow_topk: None) -> None:
    numbers = torch.stack([torch.randperm(23, generator=torch.Generator().manual_seed(n)) for n in range(3)])
    assert (numbers.gather(-1, inverse(numbers)) == torch.arange(23)).all()


# 2: partition, not scatter ---------------------------------------------------------------------------------


@given(seed=seeds, batch=batches, n=st.integers(1, 12), data=st.data())
def test_partition_keeps_every_row_once(seed: int, batch: int, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    h = noise(seed, batch, n + 1, 5)
    order = noise(seed + 1, batch, n).argsort(dim=1)
    kept, leavers = partition(h, order, k)
    assert torch.equal(kept[:, 0], h[:, 0])
    for i in range(batch):
        assert torch.equal(kept[i, 1:], h[i, 1:][order[i, :k]])
        if k < n:
            assert leavers is not None
            assert torch.equal(leavers[i], h[i, 1:][order[i, k:]])
    assert (leavers is None) == (k == n)
    alone, gone = partition(h[0], order[0], k)  # a graph for one image has no batch axis
    assert torch.equal(alone, kept[0])
    assert (gone is None and leavers is None) or torch.equal(gone, leavers[0])


@given(seed=seeds, shape=heads, batch=batches, data=st.data())
def test_partition_and_join_equal_scatter(
    seed: int, shape: tuple[int, int], batch: int, data: st.DataObject
) -> None:
    """Run the kept tokens, put the leavers back in any order, and let the next block look at all of them."""
    n = data.draw(st.integers(2, 12))
    k = data.draw(st.integers(1, n - 1))
    block, _ = blocks(seed, *shape)
    h = noise(seed, batch, n + 1, shape[0])
    order = noise(seed + 1, batch, n).argsort(dim=1)
    kept, leavers = partition(h, order, k)
    assert leavers is not None
    routed = torch.cat([block(kept), leavers], dim=1)
    rows = F.pad(order[:, :k] + 1, (1, 0))[..., None].expand(-1, -1, shape[0])
    scattered = h.scatter(1, rows, block(h.gather(1, rows)))
    assert equal(block(routed)[:, 0], block(scattered)[:, 0])


@given(seed=seeds, shape=heads, batch=batches, data=st.data())
def test_partition_of_all_and_join_equal_scatter(
    seed: int, shape: tuple[int, int], batch: int, data: st.DataObject
) -> None:
    """Every token is where the order puts it, those that ran with their new state; CLS is found again."""
    n = data.draw(st.integers(2, 12))
    k = data.draw(st.integers(1, n - 1))
    block, parts = blocks(seed, *shape)
    h = noise(seed, batch, n, shape[0])
    order = noise(seed + 1, batch, n).argsort(dim=1)
    ran, rest = partition_all(h, order, k)
    rows = order[:, :k, None].expand(-1, -1, shape[0])
    scattered = h.scatter(1, rows, block(h.gather(1, rows)))
    routed = torch.cat([parts(ran), rest], dim=1)
    assert equal(routed, take(scattered, order))
    row = order.argmin(dim=1, keepdim=True)
    assert equal(cls_only(parts, routed, row=row), block(scattered)[:, :1])
    assert equal(cls_only(parts, routed[0], row=row[0]), block(scattered)[0, :1])


@given(seed=seeds, batch=batches, n=st.integers(1, 9), k=st.integers(1, 9))
def test_take_is_a_gather_of_rows(seed: int, batch: int, n: int, k: int) -> None:
    h = noise(seed, batch, n, 4)
    index = torch.randint(n, (batch, k), generator=torch.Generator().manual_seed(seed))
    expected = h.gather(1, index[..., None].expand(-1, -1, 4))
    assert torch.equal(take(h, index), expected)
    assert torch.equal(take(h[0], index[0]), expected[0])


# 3: only what the logits need ------------------------------------------------------------------------------


@given(seed=seeds, shape=heads, batch=batches, n=st.integers(1, 12))
def test_cls_only_is_the_first_row_of_the_block(
    seed: int, shape: tuple[int, int], batch: int, n: int
) -> None:
    block, parts = blocks(seed, *shape)
    h = noise(seed, batch, n + 1, shape[0])
    assert equal(cls_only(parts, h), block(h)[:, :1])
    assert equal(cls_only(parts, h[0]), block(h)[0, :1])


# 4: frozen keys --------------------------------------------------------------------------------------------


@given(seed=seeds, shape=heads, batch=batches, leaving=st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_frozen_keys_equal_keys_of_every_token(
    seed: int, shape: tuple[int, int], batch: int, leaving: list[int]
) -> None:
    """Tokens leave from the end of x, step by step; the reference keys all of them again at each step."""
    block, parts = blocks(seed, *shape)
    x = noise(seed, batch, 3 + sum(leaving), shape[0])
    left = x[:, :0]
    expected, known, carried = x, left, None
    for count in leaving:
        stay = x.shape[1] - count
        fresh, x = x[:, stay:], x[:, :stay]
        expected, known = expected[:, :stay], torch.cat([known, expected[:, stay:]], dim=1)
        expected = block(expected, torch.cat([expected, known], dim=1))
        x, carried = frozen_keys(parts, x, fresh if count else None, carried, queries=stay)
        assert equal(x, expected)
        assert (0 if carried is None else carried.k.shape[2]) == known.shape[1]


@given(seed=seeds, shape=heads, fresh=st.integers(1, 4), queries=st.integers(1, 3))
def test_frozen_keys_update_only_the_queries(
    seed: int, shape: tuple[int, int], fresh: int, queries: int
) -> None:
    block, parts = blocks(seed, *shape)
    x, gone = noise(seed, 1, 3, shape[0]), noise(seed + 1, 1, fresh, shape[0])
    updated, _ = frozen_keys(parts, x, gone, None, queries)
    assert equal(updated, block(x[:, :queries], torch.cat([x, gone], dim=1)))
    alone, _ = frozen_keys(parts, x[0], gone[0], None, queries)
    assert equal(alone, updated[0])


def test_join_puts_the_groups_after_each_other() -> None:
    a, b = (KV(noise(i, 1, 2, i, 3), noise(i + 9, 1, 2, i, 3)) for i in (1, 2))
    joined = join(a, b)
    assert torch.equal(joined.k, torch.cat([a.k, b.k], dim=2))
    assert torch.equal(joined.v, torch.cat([a.v, b.v], dim=2))
    assert join(a, None) is a


# 5: fold ---------------------------------------------------------------------------------------------------


@given(seed=seeds, dim=st.integers(2, 20), out=st.integers(1, 9), biased=st.booleans())
def test_fold_norm(seed: int, dim: int, out: int, biased: bool) -> None:
    x, scale, shift = noise(seed, 7, dim), noise(seed + 1, dim), noise(seed + 2, dim)
    linear = Affine(noise(seed + 3, dim, out), noise(seed + 4, out) if biased else None)
    folded = fold_norm(scale, shift, linear)
    expected = F.linear(F.layer_norm(x, (dim,), scale, shift), linear.weight.T, linear.bias)
    assert equal(F.layer_norm(x, (dim,)) @ folded.weight + folded.bias, expected)


@given(seed=seeds, factor=st.floats(0.01, 10), biased=st.booleans())
def test_fold_scale(seed: int, factor: float, biased: bool) -> None:
    x, linear = noise(seed, 3, 6), Affine(noise(seed + 1, 6, 4), noise(seed + 2, 4) if biased else None)
    folded = fold_scale(factor, linear)
    expected = F.linear(x, linear.weight.T, linear.bias) * factor
    assert equal(F.linear(x, folded.weight.T, folded.bias), expected)
    assert (folded.bias is None) == (not biased)


@given(
    seed=seeds,
    size=st.sampled_from([1, 2, 4]),
    biased=st.booleans(),
    white=st.sampled_from([255.0, 255 / 256, 1.0]),
    data=st.data(),
)
def test_fold_pixels(seed: int, size: int, biased: bool, white: float, data: st.DataObject) -> None:
    """A convolution over normalised pictures is the folded projection of raw pixels, from 0 to `white`."""
    mean = data.draw(st.tuples(*[st.floats(-1, 1)] * 3))
    std = data.draw(st.tuples(*[st.floats(0.05, 2)] * 3))
    pixels = torch.randint(256, (2, size, size, 3), generator=torch.Generator().manual_seed(seed)).double()
    kernel, bias = noise(seed + 1, 5, 3, size, size), noise(seed + 2, 5)
    normal = (pixels / 255 - torch.tensor(mean, dtype=torch.float64)) / torch.tensor(std, dtype=torch.float64)
    expected = F.conv2d(normal.permute(0, 3, 1, 2), kernel, bias if biased else None)[:, :, 0, 0]
    patch = Affine(kernel.permute(2, 3, 1, 0).flatten(0, 2), bias if biased else None)
    folded = fold_pixels(patch, mean, std, white)
    assert equal((pixels * (white / 255)).flatten(1) @ folded.weight + folded.bias, expected)


@given(seed=seeds, n=st.integers(1, 9), dim=st.integers(1, 9))
def test_fold_positions(seed: int, n: int, dim: int) -> None:
    cls, positions, bias = noise(seed, 1, 1, dim), noise(seed + 1, 1, n + 1, dim), noise(seed + 2, dim)
    patches = noise(seed + 3, 2, n, dim)
    expected = torch.cat([cls.expand(2, -1, -1), patches + bias], dim=1) + positions
    first, others = fold_positions(cls, positions, bias)
    assert equal(torch.cat([first.expand(2, -1, -1), patches + others], dim=1), expected)


@pytest.mark.parametrize("projections", ["joint", "apart"])
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "plain"])
@given(seed=seeds, shape=heads, biased=st.booleans())
def test_a_static_block_is_the_block(
    fold: bool, projections: Projections, seed: int, shape: tuple[int, int], biased: bool
) -> None:
    block, _ = blocks(seed, *shape, qkv_bias=biased)
    h = noise(seed, 2, 6, shape[0])
    assert equal(StaticBlock(block, fold=fold, projections=projections)(h), block(h))


# 6: keys and values that are never formed ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [StaticBlock, FusedBlock], ids=["products", "one operator"])
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "plain"])
@given(seed=seeds, shape=heads, n=st.integers(1, 12), biased=st.booleans())
def test_cls_attends_to_states_as_it_does_to_keys(
    fold: bool, kind: type[StaticBlock], seed: int, shape: tuple[int, int], n: int, biased: bool
) -> None:
    block, _ = blocks(seed, *shape, qkv_bias=biased)
    unformed = kind(block, fold=fold, projections="unformed")
    h = noise(seed, 2, n + 1, shape[0])
    assert equal(cls_only(unformed, h), block(h)[:, :1])
    assert equal(cls_only(unformed, h[0]), block(h)[0, :1])


@given(seed=seeds, shape=heads, n=st.integers(2, 12), data=st.data())
def test_hidden_states_are_no_keys(seed: int, shape: tuple[int, int], n: int, data: st.DataObject) -> None:
    """With a mask CLS attends as if the hidden tokens were not there, in a batch and for one image."""
    kept = data.draw(st.integers(1, n - 1))
    block, _ = blocks(seed, *shape)
    unformed = StaticBlock(block, fold=True, projections="unformed")
    h = noise(seed, 2, n, shape[0])
    runs = (torch.arange(n) < kept).expand(2, -1)
    expected = block(h[:, :kept])[:, :1]
    assert equal(cls_only(unformed, h, key_mask(runs, h.dtype)), expected)
    assert equal(cls_only(unformed, h[0], key_mask(runs[0], h.dtype)), expected[0])


@given(seed=seeds, shape=heads, n=st.integers(1, 9))
def test_queries_take_the_key_weights_of_their_own_head(seed: int, shape: tuple[int, int], n: int) -> None:
    (dim, count), size = shape, shape[0] // shape[1]
    q, x = noise(seed, 2, 1, dim), noise(seed + 1, 2, n, dim)
    wk, wv = noise(seed + 2, dim, dim), noise(seed + 3, dim, dim)
    own = torch.eye(count, dtype=q.dtype).repeat_interleave(size, dim=1)
    found = collect_heads(attend_states(spread_heads(q, own) @ wk.T, x, None, x.dtype) @ wv, own)
    q, k, v = (part.unflatten(-1, (count, size)).transpose(1, 2) for part in (q, x @ wk, x @ wv))
    expected = (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    assert equal(found, expected.transpose(1, 2).flatten(-2))
