"""Whether adaptive depth can pay: every outcome and its sentence from made-up measurements, and the borders."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from morvit_deploy.calibration.adaptivity.depth_effect import ENOUGH, DepthEffect
from morvit_deploy.calibration.adaptivity.rule import SAVES, VARIES, Adaptivity
from morvit_deploy.calibration.adaptivity.spread import Spread, spread_of
from morvit_deploy.calibration.adaptivity.views import adaptivity_table

MATTERS = DepthEffect(5000, "top-1", 0.35, 0.97, 0.93, 0.06)
NOTHING = DepthEffect(5000, "top-1", 0.35, 0.764, 0.765, 0.012)
UNKNOWN = DepthEffect(200, "top-1", 0.35, 0.97, 0.96, 0.03)
VARY = Spread(5000, 20.0, 8.0, 9.0, 35.0, each=20e6, one=40e6)
SAME = replace(VARY, one=20.4e6)
BORDER = replace(VARY, one=VARIES * VARY.each)

CASES = {
    "can save": (
        Adaptivity(MATTERS, VARY, topk=32e6),
        "Counts vary, depth matters: adaptive routing can save up to 1.60× over top-k.",
    ),
    "can save, one bucket is cheaper than top-k": (
        Adaptivity(MATTERS, VARY, topk=50e6),
        "Counts vary, depth matters: adaptive routing can save up to 2.00× over one bucket for all images.",
    ),
    "can save, estimated": (
        Adaptivity(MATTERS, VARY, estimated=True),
        "Counts vary, depth matters: adaptive routing can save up to 2.00× over one bucket for all images; "
        "`calibrate` compares it with top-k.",
    ),
    "can save, depths up front": (
        Adaptivity(None, VARY, full=27.2e6),
        "Counts vary: adaptive routing can save up to 1.36× over `full`.",
    ),
    "can save, depths up front and few images": (
        Adaptivity(UNKNOWN, VARY, full=27.2e6),
        "Counts vary: adaptive routing can save up to 1.36× over `full`. Whether depth matters cannot be told: 200 "
        "images are too few; about 1,600 would tell.",
    ),
    "can save, at the border of counts that vary": (
        Adaptivity(MATTERS, BORDER),
        "Counts vary, depth matters: adaptive routing can save up to 1.05× over one bucket for all images.",
    ),
    "can save, at the border of a saving": (
        Adaptivity(MATTERS, VARY, topk=SAVES * VARY.each),
        "Counts vary, depth matters: adaptive routing can save up to 1.00× over top-k.",
    ),
    "depth does not matter": (
        Adaptivity(NOTHING, VARY, topk=32e6),
        "Depth does not matter for this model: a smaller budget loses nothing (top-1 at 0.35 × the tokens: -0.2 to "
        "+0.4 points).",
    ),
    "depth does not matter, without labels": (
        Adaptivity(DepthEffect(5000, "agreement", 0.35, 1.0, 0.996, 0.004), VARY, topk=32e6),
        "Depth does not matter for this model: a smaller budget loses nothing (agreement at 0.35 × the tokens: -0.6 "
        "to -0.3 points).",
    ),
    "depth does not matter, whatever the counts": (
        Adaptivity(NOTHING),
        "Depth does not matter for this model: a smaller budget loses nothing (top-1 at 0.35 × the tokens: -0.2 to "
        "+0.4 points).",
    ),
    "counts do not vary": (
        Adaptivity(MATTERS, SAME, topk=21e6),
        "All images need about the same number of tokens: use top-k.",
    ),
    "counts do not vary, with few labels": (
        Adaptivity(UNKNOWN, SAME, topk=21e6),
        "All images need about the same number of tokens: use top-k.",
    ),
    "counts do not vary, depths up front": (
        Adaptivity(None, SAME, full=40e6),
        "All images need about the same number of tokens: one bucket beside `full` is enough.",
    ),
    "counts do not vary, just below the border": (
        Adaptivity(MATTERS, replace(VARY, one=(VARIES - 1e-6) * VARY.each)),
        "All images need about the same number of tokens: use top-k.",
    ),
    "top-k is as cheap": (
        Adaptivity(MATTERS, VARY, topk=19.9e6),
        "Counts vary, depth matters, but a bucket for each image costs 20 MMACs and top-k 19.9 MMACs: use top-k.",
    ),
    "top-k is as cheap, with few labels": (
        Adaptivity(UNKNOWN, VARY, topk=19.9e6),
        "Counts vary, but a bucket for each image costs 20 MMACs and top-k 19.9 MMACs: use top-k.",
    ),
    "top-k is as cheap, in milliseconds": (
        Adaptivity(MATTERS, replace(VARY, each=2.0, one=4.0), topk=1.9, unit="ms"),
        "Counts vary, depth matters, but a bucket for each image costs 2.00 ms and top-k 1.90 ms: use top-k.",
    ),
    "no thresholds keep accuracy": (
        Adaptivity(MATTERS, VARY, topk=32e6, keeps=False),
        "No thresholds keep the accuracy of the trained model: use top-k.",
    ),
    "too few images": (
        Adaptivity(UNKNOWN, replace(VARY, images=200), topk=32e6),
        "Counts vary, but it cannot be told whether depth matters: 200 images are too few; about 1,600 would tell.",
    ),
    "too few images, for counts too": (
        Adaptivity(replace(UNKNOWN, images=29), replace(SAME, images=ENOUGH - 1), topk=32e6),
        "It cannot be told whether adaptive routing can save: 29 images are too few; at least 30 are needed.",
    ),
    "too few images, one": (
        Adaptivity(None, replace(SAME, images=1), full=32e6),
        "It cannot be told whether adaptive routing can save: 1 image is too few; at least 30 are needed.",
    ),
    "too few images, no number would do": (
        Adaptivity(DepthEffect(100, "agreement", 0.35, 1.0, 0.99, 0.01), VARY),
        "Counts vary, but it cannot be told whether depth matters: 100 images are too few; labels would tell.",
    ),
    "one number of tokens": (
        Adaptivity(MATTERS, one_number=True),
        "This routing runs the same number of tokens for every image, so there is nothing to adapt.",
    ),
    "not measured": (Adaptivity(MATTERS, topk=32e6), ""),
}


@pytest.mark.parametrize("name", CASES)
def test_the_outcome_and_its_sentence(name: str) -> None:
    found, sentence = CASES[name]
    assert found.outcome == name.split(",")[0]
    assert found.sentence == sentence


@pytest.mark.parametrize("name", CASES)
def test_the_record_and_the_table_say_the_same(name: str) -> None:
    found, _ = CASES[name]
    record = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    table = dict(adaptivity_table(found).rows)
    assert record["outcome"] == table["outcome"] == found.outcome
    assert record["saving"] == found.saving and ("can save" in table) == (found.spread is not None)
    assert (record["depth"] is None) == table["depth"].startswith("not measured")
    assert (record["counts"] is None) == ("token counts" in table)


def test_saving_beyond_the_lower_bound_is_not_promised() -> None:
    assert Adaptivity(MATTERS, VARY, topk=32e6).saving == pytest.approx(1.6)
    assert dict(adaptivity_table(CASES["top-k is as cheap"][0]).rows)["can save"] == "nothing"


def test_the_spread_of_counts() -> None:
    """Two steps, ten tokens of cost each: nine images need 2 and 1, one needs 8 and 7."""
    counts = np.array([[2, 1]] * 9 + [[8, 7]])

    def cost(schedules: NDArray[np.int64]) -> NDArray[np.float64]:
        return 10.0 * schedules.sum(axis=1)

    found = spread_of(counts, cost)
    assert (found.images, found.mean, found.low) == (10, pytest.approx(2.1), 1.5)
    assert found.deviation == pytest.approx(1.8) and found.high == pytest.approx(4.8)
    assert (found.each, found.one, found.ratio) == (42.0, 150.0, pytest.approx(150 / 42))
    assert spread_of(counts[:9], cost).ratio == 1.0


def test_the_order_of_images_changes_nothing() -> None:
    random = np.random.default_rng(0)
    counts = np.sort(random.integers(1, 64, (97, 3)))[:, ::-1]

    def cost(schedules: NDArray[np.int64]) -> NDArray[np.float64]:
        return 0.1 * schedules.sum(axis=1)

    assert spread_of(counts, cost) == spread_of(random.permutation(counts), cost)
