"""Every figure of a verification is judged or labeled otherwise, in the table of docs/verification.md."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest
from bucket_plans import EXPERT, threshold_ladder
from places import ROOT
from static_bundle import StaticBundle
from tiny_models import random_model, random_pixels

from morvit_deploy.sources.outputs.gap import SourceGap
from morvit_deploy.verifying import dispatching
from morvit_deploy.verifying.findings import Gap
from morvit_deploy.verifying.outcome import Verification

SOURCE = SourceGap(
    sha256="0", checkpoint="0", given="images", dtype="float32", total=8, compared=8, ambiguous=0, max_abs=0.0,
    tolerance=1e-4, top1_agreement=1.0,
)  # fmt: skip  # of outputs that agree
ROW = re.compile(r"^\| (?P<names>`.*`) \| .* \| (?P<role>judged|limit|information|result) \|$", re.MULTILINE)
OPEN = ("structure", "routing_gap.margin_histogram")  # their keys are another's to name


def table() -> dict[str, str]:
    """Role of each field."""
    text = (ROOT / "docs/verification.md").read_text(encoding="utf-8")
    rows = [(row["names"], row["role"]) for row in ROW.finditer(text)]
    return {name: role for names, role in rows for name in re.findall(r"`([^`]+)`", names)}


def fields(value: Any, place: str = "") -> Iterator[str]:
    """The paths of all values in a report."""
    if place in OPEN:
        yield place
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from fields(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from fields(inner, f"{place}[]")
    else:
        yield place + "[]" * isinstance(value, list)


@pytest.fixture(scope="module")
def found() -> list[Verification]:
    """One in fp32 and one below, of a plan that is an approximation and has several buckets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatching, "TRIED", 0)
        pictures = random_pixels(EXPERT, 16, seed=5)
        model, plan = random_model(EXPERT), threshold_ladder()
        exact, below = (StaticBundle(model, plan, precision=one).verify(pictures) for one in ("fp32", "fp16"))
    return [dataclasses.replace(exact, source=SOURCE), below]


def test_every_field_is_in_the_table(found: list[Verification]) -> None:
    seen = {field for one in found for field in fields(one.as_dict())}
    seen |= {"structure.proved"}
    absent = {"gate", "fidelity[]", "source_gap"}  # in fp32, and without --reference
    assert seen - absent == {*table()}


def test_what_the_table_calls_judged_is_judged_and_nothing_else(found: list[Verification]) -> None:
    exact = dataclasses.replace(
        found[0], routing_gap=Gap(0.0, 1.0, 1.0)
    )  # of a plan that is no approximation
    checked = {check.name for one in (*found, exact) for check in one.checks}
    assert checked == {name for name, role in table().items() if role == "judged"}


def test_each_check_can_fail(found: list[Verification]) -> None:
    """And verification with it: no check is decoration."""
    for one in found:
        for number, check in enumerate(one.checks):
            failed = [*one.checks]
            failed[number] = dataclasses.replace(check, passed=False, message=f"{check.name} is wrong")
            changed = dataclasses.replace(one)
            changed.__dict__["checks"] = failed
            assert not changed.passed and f"{check.name} is wrong" in changed.failure
            assert changed.as_dict()["passed"] is False
