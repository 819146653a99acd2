"""What passes and what fails, at the limit of each check."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from morvit_deploy.model.answers.gates import Gate
from morvit_deploy.sources.outputs.gap import SourceGap
from morvit_deploy.verifying.checks import Below, Check
from morvit_deploy.verifying.findings import (
    BucketSeen,
    Dispatched,
    Edges,
    Fidelity,
    Gap,
    RoutingChange,
    finite,
)
from morvit_deploy.verifying.outcome import Verification

GOOD = Gap(0.0, 1.0, 1.0)
INF = math.inf
# of 100 decisions 4 may differ by chance, of 64 it is 3, of 1,000 it is 18: tests/model/test_gates.py
GATE = Gate(0.99, 0.99, 24.0)
SEEN = BucketSeen("b0", served=50, fitting=60, judged=100, max_abs=0.0, wrong_overflow=0)
SERVED = Dispatched(GOOD, overflowed=0, misdirected=0, images=100, median_snr_db=24.0)
LOW = Fidelity(
    "b0", 64, snr_db=30.0, token_agreement=[1.0, 0.96], flips=[0.1, 0.2, 0.6], decisions=[[], [0.5]], tokens=100,
    median_snr_db=24.0,
)  # fmt: skip  # at all limits


def source(compared: int = 8, max_abs: float = 1e-4) -> SourceGap:
    """Of a source whose outputs differ by the tolerance."""
    return SourceGap(
        sha256="0", checkpoint="0", given="images", dtype="float32", total=8, compared=compared, ambiguous=0,
        max_abs=max_abs, tolerance=1e-4, top1_agreement=1.0,
    )  # fmt: skip  # two lines read better than ten


def made(**changes: Any) -> Verification:
    """A verification in fp32 that passes."""
    fields: dict[str, Any] = {"structure": {"proved": True}, "routing_gap": GOOD, "conversion_gap": GOOD}
    fields |= {"router_agreement": [1.0, 1.0], "images": 4, "ambiguous": 0, "synthetic": False}
    return Verification(**fields | changes)


def below(**changes: Any) -> Verification:
    """A verification in int8 at the limits of its gate."""
    unjudged = Gap(0.5, INF, 1.0)
    fields = {"precision": "int8", "gate": GATE, "images": 100, "conversion_gap": unjudged, "fidelity": [LOW]}
    fields |= {"buckets": [replace(SEEN, wrong_overflow=4, wrong_depth=4)]}
    served = replace(SERVED, gap=Gap(0.5, INF, 0.96), misdirected=4, misserved=4)
    return made(**fields | {"dispatched": served, "edges": Edges(9, 9, 100, 4)} | changes)


def failed(found: Verification) -> list[str]:
    return [check.name for check in found.failed]


def test_what_is_at_its_limit_passes() -> None:
    limit = Gap(1.0, 1.0, 1.0)
    found = made(
        routing_gap=limit, unrolling_gap=limit, conversion_gap=limit, ambiguous=2, source=source(),
        buckets=[replace(SEEN, judged=2)], dispatched=Dispatched(limit, 3, 0), edges=Edges(4, 4, 4, 0),
    )  # fmt: skip  # one field or two a line
    assert found.passed and not found.failed and not found.missed and not found.only_gate_missed
    assert below().passed, below().failure
    assert made(routing_gap=Gap(9.0, INF, 0.9), min_agreement=0.9).passed


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"structure": {"proved": False}}, "structure.proved"),
        ({"structure": {"proved": 1}}, "structure.proved"),
        ({"structure": {}}, "structure.proved"),
        ({"source": source(compared=0)}, "source_gap.compared"),
        ({"source": source(max_abs=1.01e-4)}, "source_gap.max_abs"),
        ({"ambiguous": 3}, "ambiguous"),
        ({"images": 0}, "ambiguous"),
        ({"buckets": [replace(SEEN, judged=1)]}, "buckets[].judged"),
        ({"buckets": [replace(SEEN, judged=0)]}, "buckets[].judged"),
        ({"routing_gap": Gap(0.0, INF, 0.89), "min_agreement": 0.9}, "routing_gap.top1_agreement"),
        ({"unrolling_gap": Gap(1.01, 1.0, 1.0)}, "unrolling_gap.max_abs"),
        ({"conversion_gap": Gap(1.01, 1.0, 1.0)}, "conversion_gap.max_abs"),
        ({"conversion_gap": Gap(0.0, 1.0, 0.99)}, "conversion_gap.top1_agreement"),
        ({"router_agreement": [1.0, 0.999]}, "router_agreement[]"),
        ({"buckets": [replace(SEEN, wrong_overflow=1)]}, "buckets[].wrong_overflow"),
        ({"buckets": [replace(SEEN, wrong_depth=1)]}, "buckets[].wrong_depth"),
        ({"dispatched": Dispatched(Gap(1.01, 1.0, 1.0), 0, 0)}, "dispatch.max_abs"),
        ({"dispatched": Dispatched(Gap(0.0, 1.0, 0.5), 0, 0)}, "dispatch.top1_agreement"),
        ({"dispatched": Dispatched(GOOD, 0, 1)}, "dispatch.misdirected"),
        ({"edges": Edges(4, 4, 100, 1)}, "edges.wrong"),
    ],
)
def test_what_is_beyond_its_limit_fails(changes: dict[str, Any], name: str) -> None:
    found = made(**changes)
    assert failed(found) == [name] and not found.passed
    assert not found.missed and not found.only_gate_missed, "no gate in fp32"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"fidelity": [replace(LOW, token_agreement=[0.96, 0.95])]}, "fidelity[].token_agreement[]"),
        ({"fidelity": [replace(LOW, token_agreement=[0.9375], tokens=0)]}, "fidelity[].token_agreement[]"),
        ({"fidelity": [replace(LOW, flips=[0.1] * 4)]}, "fidelity[].class_flips"),
        ({"fidelity": [replace(LOW, median_snr_db=23.9)]}, "fidelity[].median_snr_db"),
        ({"dispatched": replace(SERVED, gap=Gap(0.5, INF, 0.95))}, "dispatch.top1_agreement"),
        ({"dispatched": replace(SERVED, median_snr_db=23.9)}, "dispatch.median_snr_db"),
    ],
)
def test_a_gate_that_is_missed_may_be_accepted(changes: dict[str, Any], name: str) -> None:
    found = below(**changes)
    assert failed(found) == [name] and found.only_gate_missed
    assert found.missed == [found.failed[0].message]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"fidelity": [replace(LOW, snr_db=-INF)]}, "fidelity[].median_snr_db"),
        ({"dispatched": replace(SERVED, median_snr_db=math.nan)}, "dispatch.median_snr_db"),
        ({"buckets": [replace(SEEN, wrong_overflow=5)]}, "buckets[].wrong_overflow"),
        ({"buckets": [replace(SEEN, wrong_depth=5)]}, "buckets[].wrong_depth"),
        ({"dispatched": replace(SERVED, misdirected=5)}, "dispatch.misdirected"),
        ({"dispatched": replace(SERVED, misserved=5)}, "dispatch.misserved"),
        ({"edges": Edges(9, 9, 100, 5)}, "edges.wrong"),
    ],
)
def test_what_no_loss_of_precision_excuses(changes: dict[str, Any], name: str) -> None:
    found = below(**changes)
    assert failed(found) == [name] and not found.only_gate_missed and not found.missed


def test_a_gate_and_more_that_fail_are_not_only_the_gate() -> None:
    found = below(fidelity=[replace(LOW, flips=[0.1] * 4)], edges=Edges(9, 9, 100, 5))
    assert len(found.missed) == 1 and not found.only_gate_missed


def test_fractions_of_too_few_images_are_not_judged() -> None:
    """18 images are needed for 99 %; logits are judged with any number."""
    enough = Below("int8", GATE, 18)
    assert enough.enough and enough.of_images().passed
    few = Below("int8", GATE, 17)
    assert not few.enough and not few.of_images().passed and few.of_images().of_gate
    assert (few.of_images().value, few.of_images().limit) == (17, 18)
    for below_limit in (few.tokens("", 99, 100), few.classes("", "", 99, 100), few.implied("", "", 99, 100)):
        assert [*below_limit] == []
    assert [check.passed for check in few.logits("", "", 25.0)] == [True]


def test_a_check_states_its_value_and_its_limit() -> None:
    (tokens,) = Below("int8", GATE, 18).tokens("step 1", 5, 100)
    assert (tokens.value, tokens.limit, tokens.passed) == (5, 4, False)
    assert (
        "got token agreement 95.00%, expected at least 99.00% (5 of 100 decisions differ, at most 4"
        in tokens.message
    )
    assert Check("a", INF, 1, False).as_dict() == {"name": "a", "value": None, "limit": 1.0, "passed": False}
    found = {check.name: check for check in made(ambiguous=1, source=source()).checks}
    assert (found["ambiguous"].value, found["ambiguous"].limit) == (1, 2)
    assert (found["source_gap.compared"].value, found["source_gap.compared"].limit) == (8, 1)
    assert found["structure.proved"].value == found["structure.proved"].limit == 1.0


def test_the_limits_of_all_checks() -> None:
    found = made(
        buckets=[replace(SEEN, wrong_overflow=1, wrong_depth=2, judged=3)], edges=Edges(4, 4, 9, 1),
        dispatched=Dispatched(Gap(0.5, 0.75, 0.875), 0, 3), unrolling_gap=Gap(0.125, 0.25, 1.0), min_agreement=0.5,
        router_agreement=[0.75],
    )  # fmt: skip  # one field or two a line
    assert {check.name: (check.value, check.limit) for check in found.checks} == {
        "structure.proved": (1, 1), "ambiguous": (0, 2), "buckets[].judged": (3, 2),
        "routing_gap.max_abs": (0, 1), "routing_gap.top1_agreement": (1, 1),
        "unrolling_gap.max_abs": (0.125, 0.25), "unrolling_gap.top1_agreement": (1, 1),
        "conversion_gap.max_abs": (0, 1), "conversion_gap.top1_agreement": (1, 1), "router_agreement[]": (0.75, 1),
        "buckets[].wrong_overflow": (1, 0), "buckets[].wrong_depth": (2, 0), "dispatch.max_abs": (0.5, 0.75),
        "dispatch.top1_agreement": (0.875, 1), "dispatch.misdirected": (3, 0), "edges.wrong": (1, 0),
    }  # fmt: skip  # value and limit


def test_gaps_without_a_tolerance_are_not_judged() -> None:
    names = [check.name for check in made(routing_gap=Gap(5.0, INF, 0.8), unrolling_gap=GOOD).checks]
    assert "routing_gap.max_abs" not in names and "unrolling_gap.max_abs" in names
    assert [name for name, _ in made(unrolling_gap=GOOD).gaps] == ["routing", "unrolling", "conversion"]
    assert [name for name, _ in made().gaps] == ["routing", "conversion"]


def test_the_message_of_a_failure() -> None:
    found = made(
        buckets=[replace(SEEN, wrong_overflow=2)], same_checkpoint=False, first_divergence="step1.state",
        structure={"proved": False, "violations": ["one", "two", "three", "four", "five"]},
    )  # fmt: skip  # one field or two a line
    lines = [line.strip().removeprefix("- ") for line in found.failure.splitlines()]
    assert lines[1] == "the bundle was exported from another checkpoint (sha256 differs)"
    assert lines[2:6] == ["one", "two", "three", "and 2 more structure violations"]
    assert lines[6:] == ["bucket b0: overflow is wrong for 2 images", "first divergence: step1.state"]
    few = below(images=17, buckets=[], dispatched=None, edges=None)
    assert few.failure == few.failed[0].message, "the bundle may be right"


def test_routing_is_counted_in_integers() -> None:
    change = RoutingChange.empty(2)
    assert all(np.issubdtype(one.dtype, np.integer) for one in (change.alike, change.counts))


def test_the_report_has_the_smallest_margins() -> None:
    told = made(margins=[0.5, 0.25, INF], clearances=[0.75, 0.125]).as_dict()
    assert (told["min_margin"], told["min_clearance"]) == (0.25, 0.125)
    told = made().as_dict()
    assert told["min_margin"] is None and told["min_clearance"] is None
    assert "kept_share" not in told["routing_gap"]
    change = RoutingChange(np.array([3, 1]), 4, np.array([2, 0]), [0.5])
    told = made(routing_change=change).as_dict()["routing_gap"]
    assert (told["decision_agreement"], told["kept_share"]) == ([0.75, 0.25], [0.5, 0.0])


def test_findings_by_hand() -> None:
    assert GOOD.passed and Gap(9.0, INF, 0.1).passed and Gap(1.0, 1.0, 1.0).passed
    assert not Gap(1.01, 1.0, 1.0).passed and not Gap(0.0, 1.0, 0.99).passed
    assert SERVED.passed and not replace(SERVED, misdirected=1).passed
    assert not replace(SERVED, gap=Gap(2.0, 1.0, 1.0)).passed
    assert replace(SERVED, gap=Gap(0.5, INF, 0.93)).class_flips == 7
    assert [finite(value) for value in (1.5, INF, -INF, math.nan, None)] == [1.5, None, None, None, None]
    told = replace(LOW, flips=[1.0, 6.0, 2.0], snr_db=INF).as_dict()
    assert (told["class_flips"], told["median_margin"], told["largest_margin"]) == (3, 2.0, 6.0)
    assert told["snr_db"] is None and told["median_snr_db"] == 24.0
    assert told["steps"] == [
        {"flips": 0, "median_margin": None, "largest_margin": None},
        {"flips": 1, "median_margin": 0.5, "largest_margin": 0.5},
    ]


def test_which_tokens_merge_is_not_judged_below_fp32() -> None:
    """A merge made otherwise joins two tokens that are nearly as similar; classes and logits judge what it does."""
    drifted = [replace(LOW, token_agreement=[0.5])]
    assert not below(fidelity=drifted).passed
    assert below(fidelity=drifted, judges_tokens=False).passed
    assert not below(fidelity=[replace(drifted[0], median_snr_db=20.0)], judges_tokens=False).passed
