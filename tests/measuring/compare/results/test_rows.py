"""Ratios, ranks, noise and the sentence of made-up samples; a result that is read back. Nothing is timed here."""

from __future__ import annotations

import pytest
from comparisons import comparison, row

from morvit_deploy.measuring.compare.results.views import short_names
from morvit_deploy.timing.arithmetic import OVERFLOWED
from morvit_deploy.timing.samples import Block

OURS = row("build/b16", 10.0, 10.1, 9.9, kind="bundle", macs=2_700_000_000)
VIT = row("vit_base_patch16_224", 40.0, 40.4, 39.6, macs=17_600_000_000)
FASTER = row("resnet50", 5.0, 5.1, 4.9)


def test_ratios_refer_to_vit_b16_or_else_to_the_first() -> None:
    assert comparison(OURS, FASTER, VIT).reference is VIT
    assert comparison(OURS, FASTER).reference is OURS
    ratio = comparison(OURS, VIT).ratio(OURS)
    assert ratio.per_block == pytest.approx((4.0, 4.0, 4.0)) and ratio.against == VIT.name


def test_the_sentence_says_what_is_ahead_and_by_how_much() -> None:
    assert comparison(OURS, VIT).sentence == (
        "b16 takes 10.0 ms an image (median), 4.00× (4.00–4.00) as fast as vit_base_patch16_224. No other model is "
        "ahead."
    )
    assert comparison(OURS, VIT, FASTER).sentence.endswith("Ahead of it: resnet50 by 2.00×.")
    assert comparison(OURS).sentence == "b16 takes 10.0 ms an image (median)."


def test_a_rank_is_shared_where_one_is_not_faster_in_every_block() -> None:
    close = row("close", 10.05, 10.0, 10.0)
    assert comparison(OURS, close, VIT, FASTER).ranks == {
        FASTER.name: "1",
        OURS.name: "=2",
        close.name: "=2",
        VIT.name: "4",
    }


def test_a_noisy_run_has_no_ranks_and_says_so() -> None:
    wild = [row(name, 10.0, 14.0, 20.0) for name in ("a", "b")]
    result = comparison(*wild)
    assert result.too_noisy and result.ranks == {}
    assert "too noisy to rank: half of a model's blocks typically spread over 35.71 %" in result.sentence
    assert result.as_dict()["too_noisy"] is True
    assert not comparison(OURS, VIT, wild[0]).too_noisy, "one row that was disturbed has a warning of its own"


def test_macs_of_a_choice_are_the_mean_of_what_ran() -> None:
    chosen = Block(
        (1.0,) * 4, bucket=(("s",), ("s",), ("full",), ("s",)), overflow=((False,),) * 3 + ((True,),)
    )
    adaptive = row("a", 1.0)
    adaptive = type(adaptive)(
        **{**vars(adaptive), "blocks": (chosen,), "macs_by_bucket": {"s": 1, "full": 5}}
    )
    assert chosen.kinds[-1] == OVERFLOWED
    assert adaptive.macs == (1 + 1 + 5 + 5) / 4
    assert row("b", 1.0, macs=None).macs is None


def test_names_are_short_unless_they_are_the_same() -> None:
    twice = comparison(row("a/model", 1.0), row("b/model", 1.0), row("c/other.onnx", 1.0))
    assert short_names(twice) == {"a/model": "a/model", "b/model": "b/model", "c/other.onnx": "other.onnx"}


def test_the_page_has_all_parts_and_marks_what_is_published() -> None:
    page = comparison(OURS, VIT, FASTER).report().html()
    for words in ("Speed</h2>", "Work and memory</h2>", "Not measured</h2>", "Conditions</h2>", "GMACs"):
        assert words in page
    assert "top-1, published" in page and "img/s, published" in page and "an unnamed GPU" in page
    assert "<svg class=chart role=img aria-label=" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_rows_are_ordered_by_what_their_ratios_compare() -> None:
    """Means beside a bundle that chooses buckets: a median would leave out its dear images."""
    blocks = (Block((1.0, 1.0, 7.0), bucket=(("s",), ("s",), ("full",))),) * 3
    adaptive = type(OURS)(**{**vars(OURS), "name": "adaptive", "blocks": blocks})
    skewed = type(OURS)(**{**vars(OURS), "name": "skewed", "blocks": (Block((2.0, 2.0, 11.0)),) * 3})
    found = comparison(adaptive, skewed)
    assert [row.name for row in found.ordered] == ["adaptive", "skewed"]
    assert found.ranks == {"adaptive": "1", "skewed": "2"}
