"""The choice of a bucket as tensor functions, against plain Python."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from morvit_deploy.graph.maths.dispatch import (
    HIDDEN,
    cheapest_fitting,
    counts_of,
    key_mask,
    predicted,
    sort_by_depth,
)

LAYERS = 5
LARGEST = 4095  # patch tokens of a 1024 × 1024 image at patch size 16, less one

depths = st.lists(st.integers(1, LAYERS), min_size=1, max_size=20)
batches = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(st.integers(1, LAYERS), min_size=n, max_size=n), min_size=1, max_size=4)
)
ladders = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4).map(
    lambda ladder: (*ladder, (9, 9))
)
two_counts = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5)


@given(batch=batches)
def test_counts_of(batch: list[list[int]]) -> None:
    expected = [[sum(d >= layer for d in image) for layer in range(1, LAYERS + 1)] for image in batch]
    assert counts_of(torch.tensor(batch), LAYERS).tolist() == expected
    assert counts_of(torch.tensor(batch[0]), LAYERS).tolist() == expected[0], "without a batch axis"


@given(depth=depths)
def test_sort_by_depth_is_stable(depth: list[int]) -> None:
    expected = sorted(range(len(depth)), key=lambda token: (-depth[token], token))
    assert sort_by_depth(torch.tensor(depth)).tolist() == expected
    assert sort_by_depth(torch.tensor([depth, depth[::-1]]))[0].tolist() == expected


def test_sort_by_depth_of_ties_alone() -> None:
    assert sort_by_depth(torch.full((LARGEST,), 3)).tolist() == list(range(LARGEST))


@given(counts=st.lists(st.integers(0, 20), min_size=1, max_size=6), bounds=st.lists(st.integers(0, 20)))
def test_predicted(counts: list[int], bounds: list[int]) -> None:
    upto = (*sorted(bounds), 20)
    expected = [next(i for i, bound in enumerate(upto) if count <= bound) for count in counts]
    answer = predicted(torch.tensor(counts), upto)
    assert answer.dtype == torch.int32
    assert answer.tolist() == expected
    assert predicted(torch.tensor(counts[0]), upto).item() == expected[0]


@given(images=two_counts, ladder=ladders)
def test_cheapest_fitting(images: list[tuple[int, int]], ladder: tuple[tuple[int, int], ...]) -> None:
    expected = [
        next(i for i, held in enumerate(ladder) if all(n <= k for n, k in zip(counts, held, strict=True)))
        for counts in images
    ]
    answer = cheapest_fitting(torch.tensor(images), ladder)
    assert answer.dtype == torch.int32
    assert answer.tolist() == expected
    assert cheapest_fitting(torch.tensor(images[0]), ladder).item() == expected[0]


def test_key_mask_hides_who_does_not_run() -> None:
    runs = torch.tensor([[True, False, True], [True, True, True]])
    mask = key_mask(runs, torch.float64)
    assert mask.shape == (2, 1, 1, 3) and mask.dtype == torch.float64
    weights = mask.softmax(dim=-1)[:, 0, 0]
    assert weights[0].tolist() == [0.5, 0.0, 0.5]
    assert weights[1].tolist() == torch.full((3,), 1 / 3, dtype=torch.float64).tolist()


@given(st.floats(-65504, 65504), st.floats(-65504, 65504))  # the largest logits that an fp16 product holds
def test_a_hidden_key_has_no_weight_whatever_its_logit(seen: float, hidden: float) -> None:
    runs = torch.tensor([True, False])
    for dtype in (torch.float32, torch.float64):
        mask = key_mask(runs, dtype)
        assert mask.tolist() == [0.0, torch.tensor(HIDDEN).item()], "finite"
        assert (torch.tensor([seen, hidden], dtype=dtype) + mask).softmax(dim=-1).tolist() == [1.0, 0.0]
