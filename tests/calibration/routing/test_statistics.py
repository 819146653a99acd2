"""Statistics joined in any order, and files that are refused. Everything is a whole number: equal to the bit."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_setup import last_of, logits_of, run_of
from tiny_models import make_config

from morvit_deploy.calibration.routing.histograms import BINS
from morvit_deploy.calibration.routing.statistics import DIGESTS, Shard, Statistics, join
from morvit_deploy.errors import ImageError, PlanError

LOADED: list[str] = []


def parts() -> list[Statistics]:
    """A last round of three shards; the last had no image to read."""
    config = make_config()
    run = run_of(count=5)
    shards = [
        last_of(config, [[9, 5, 2], [4, 4, 1]], run),
        last_of(config, [[7, 7, 7]], run),
        Statistics(run, 0, (Shard(3, 3),), bad=[("c.png", "torn")]),
    ]
    for number, part in enumerate(shards, start=1):
        part.shards = (Shard(number, 3),)
        part.digest = (DIGESTS - number) % DIGESTS
    shards[0].bad = [("d.png", "torn")]
    return shards


def told(statistics: Statistics) -> Any:
    """All that there is, in a form that compares; the rows of `counts` have no order."""
    assert statistics.counts is not None
    return (
        replace(statistics, histograms=[], counts=None, tallies={}),
        sorted(statistics.counts.tolist()),
        {name: np.asarray(tally).tolist() for name, tally in statistics.tallies.items()},
        [histogram.counts.tolist() for histogram in statistics.histograms],
    )


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_shards_join_in_any_order(order: tuple[int, ...]) -> None:
    shards = parts()
    whole = join(shards[i] for i in order)
    assert whole.complete and whole.shards == (Shard(1, 3), Shard(2, 3), Shard(3, 3))
    assert whole.images == 3 and whole.digest == DIGESTS - 6
    assert whole.bad == [("c.png", "torn"), ("d.png", "torn")]
    assert told(whole) == told(join(shards))
    assert told(join([join([shards[order[0]], shards[order[1]]]), shards[order[2]]])) == told(whole)
    assert whole.tallies["topk.alike"].tolist() == [3] * 7


def test_histograms_add_up() -> None:
    a, b = logits_of([0.0, 1.0], shard=Shard(1, 2)), logits_of([1.0], shard=Shard(2, 2))
    whole = join([b, a])
    assert not a.complete and whole.complete
    for histogram, one, other in zip(whole.histograms, a.histograms, b.histograms, strict=True):
        assert histogram.total == 3
        assert (histogram.counts == one.counts + other.counts).all()


def test_a_shard_that_stands_alone_is_joined() -> None:
    assert join([logits_of([1.0])]).complete


@pytest.mark.parametrize("statistics", [logits_of([0.5, -3.0], thresholds=((0.1, None),) * 7), *parts()])
def test_files_hold_everything(statistics: Statistics, tmp_path: Path) -> None:
    statistics.save(tmp_path / "s.npz")
    found = Statistics.load(tmp_path / "s.npz")
    if statistics.counts is not None:
        assert told(found) == told(statistics)
        assert found.counts is not None and found.counts.dtype == np.uint8
    assert found.thresholds == statistics.thresholds and found.run == statistics.run
    assert [h.counts.tolist() for h in found.histograms] == [h.counts.tolist() for h in statistics.histograms]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": run_of(count=7)}, "different runs: number of images 7 and 5; use a separate folder"),
        ({"run": run_of("topk", count=5)}, "different runs: mode topk and threshold"),
        ({"round": 1}, "statistics of rounds 2 and 1, expected one round"),
        ({"shards": (Shard(2, 4),)}, r"got shards 1/3, 2/4, expected distinct shards of one division"),
        ({"shards": (Shard(1, 3),)}, r"got shards 1/3, 1/3, expected distinct shards of one division"),
        ({"thresholds": ((0.5,),) * 7}, "shards 2/3 and 1/3 used different thresholds"),
    ],
    ids=["images", "mode", "round", "division", "twice", "thresholds"],
)
def test_what_does_not_belong_together(change: dict[str, Any], message: str) -> None:
    first, second, _ = parts()
    with pytest.raises(PlanError, match=message):
        join([replace(second, **change), first])


def test_differences_are_short() -> None:
    run = run_of()
    told = run.differences(replace(run, images="e" * 64, scales=(1.0,)))
    assert told.startswith(
        "choice of images (sha256; the folder, --limit, --seed, --upscale or --exif) dddddddddddd… and "
    )
    assert "scales" in told and "checkpoint" not in told


# --- files of others


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self) -> Any:
        return LOADED.append, ("unpickled",)


def zipped(head: Any, **arrays: Any) -> bytes:
    content = io.BytesIO()
    text = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    np.savez(content, head=text, **arrays)
    return content.getvalue()


def head(**changes: Any) -> dict[str, Any]:
    run = {"checkpoint": "c", "images": "d", "count": 3, "mode": "threshold", "scales": [1.0]}
    fields = {"format": "morvit-statistics/1", "run": run, "round": 0, "shards": [[1, 1]], "thresholds": [[]]}
    return fields | {"images": 3, "digest": 5, "bad": []} | changes


def npy(array: Any, **how: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, **how)
    return content.getvalue()


def pickled_inside() -> bytes:
    content = io.BytesIO()
    np.savez(content, head=np.array([Trap()], dtype=object))
    return content.getvalue()


def broken_header() -> bytes:
    """An array whose header is cut off within a bracket."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("head.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((( \n" + bytes(64))
    return content.getvalue()


FOREIGN = {
    "empty": b"",
    "text": b"not a zip file",
    "a pickle": pickle.dumps(Trap()),
    "a pickle inside": pickled_inside(),
    "npy": npy(np.zeros(3)),
    "a pickled npy": npy(np.array([Trap()], dtype=object), allow_pickle=True),
    "no head": zipped({}),
    "another format": zipped(head(format="morvit-statistics/2")),
    "no shards": zipped({name: value for name, value in head().items() if name != "shards"}),
    "no such shard": zipped(head(shards=[[3, 2]])),
    "more of a run": zipped(head(run={"checkpoint": "c", "scales": [1.0], "seed": 3})),
    "short histograms": zipped(head(), histograms=np.zeros((1, 3), dtype=np.int64)),
    "histograms of floats": zipped(head(), histograms=np.zeros((1, BINS))),
    "too many histograms": zipped(head(), histograms=np.zeros((2, BINS), dtype=np.int64)),
    "a list": zipped([1, 2]),
    "a number as text": zipped(head(images="3")),
    "a share of an image": zipped(head(images=3.5)),
    "images below none": zipped(head(images=-1)),
    "a round before the first": zipped(head(round=-1)),
    "no shard": zipped(head(shards=[])),
    "thresholds of NaN": zipped(head(thresholds=[[float("nan")]])),
    "no scale": zipped(
        head(run={"checkpoint": "c", "images": "d", "count": 3, "mode": "topk", "scales": []})
    ),
    "an unknown mode": zipped(
        head(run={"checkpoint": "c", "images": "d", "count": 3, "mode": "best", "scales": [1.0]})
    ),
    "another field": zipped(head(plan="mine")),
    "another array": zipped(head(), weights=np.zeros(3)),
    "a pickle among the tallies": zipped(head(), **{"tally.right": np.array([Trap()], dtype=object)}),
    "a header that is no Python": broken_header(),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_refused_and_never_unpickled(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "round01-shard1of1.npz"
    path.write_bytes(content)
    with pytest.raises(
        PlanError, match=r"is not a complete morvit-statistics/1 .*remove it and run its shard again"
    ):
        Statistics.load(path)
    assert LOADED == []


def test_the_good_file_beside_the_foreign_ones(tmp_path: Path) -> None:
    path = tmp_path / "good.npz"
    path.write_bytes(zipped(head(), histograms=np.ones((1, BINS), dtype=np.int64)))
    assert Statistics.load(path).histograms[0].total == BINS


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_cut_off_files_are_refused(part: float, tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    logits_of([1.0, 2.0]).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(PlanError, match="is not a complete"):
        Statistics.load(path)


def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    logits_of([1.0, 2.0]).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(PlanError, match="is not a complete"):
        Statistics.load(path)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="No such file"):
        Statistics.load(tmp_path / "gone.npz")


# --- what they say


def test_shares_of_right_answers_need_every_label() -> None:
    config = make_config()
    every = {
        "labelled": 2,
        "right": 1,
        "threshold.right": np.array([0, 2]),
        "threshold.alike": np.array([1, 2]),
    }
    run = run_of(scales=(0.5, 1.0))
    labelled = last_of(config, [[9, 5, 2], [4, 4, 1]], run, **every)
    assert labelled.trained_top1 == 0.5
    assert [labelled.top1("threshold", i) for i in range(2)] == [0.0, 1.0]
    assert [labelled.agreement("threshold", i) for i in range(2)] == [0.5, 1.0]
    some = last_of(config, [[9, 5, 2], [4, 4, 1]], run, **every | {"labelled": 1})
    assert some.trained_top1 is None and some.top1("threshold", 1) is None


def test_unreadable_images_are_listed() -> None:
    statistics = logits_of([1.0])
    statistics.bad = [(f"{i}.png", f"{i}.png is torn") for i in range(12)]
    statistics.check_bad(12)
    with pytest.raises(ImageError) as caught:
        statistics.check_bad(11)
    text = str(caught.value)
    assert text.startswith("unreadable images: 12 so far, --max-bad allows 11; repair or remove them")
    assert "  - 9.png is torn\n  - and 2 more" in text and "10.png" not in text


@pytest.mark.parametrize(("text", "number", "of"), [("1/1", 1, 1), ("2/8", 2, 8)])
def test_shard(text: str, number: int, of: int) -> None:
    assert Shard.parse(text) == Shard(number, of)
    assert str(Shard.parse(text)) == text


@pytest.mark.parametrize("text", ["", "2", "2/", "/2", "a/b", "1/2/3", "-1/2", "1.0/2"])
def test_no_shard(text: str) -> None:
    with pytest.raises(PlanError, match=r"shard: got .*expected i/n, as in 2/8"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0"])
def test_no_such_shard(text: str) -> None:
    with pytest.raises(PlanError, match=f"shard: got {text}, expected i/n with 1 ≤ i ≤ n"):
        Shard.parse(text)
