"""Bundles of every form in the oldest runtime and in this environment's, and how a cell is judged."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket_plans import threshold_ladder
from bundles import FORMS, MODELS, Expected, Reference
from cells import Failed, how_it_ended, run
from environments import environment, is_made
from exported_cases import exported_cases
from judging import judge
from matrix import PAGE
from page import NO_BUNDLE, title
from runtimes import NODE, OLDEST, RUNTIMES, Runtime, chosen
from tiny_models import make_config, random_model, random_pixels

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.exporters.onnx.releases import lowest_of
from morvit_deploy.model.answers.gates import GATES
from morvit_deploy.verifying.gaps import LogitPairs

IMAGES = 12
BUNDLES: dict[str, dict[str, Any]] = {  # as other tests export them, which share theirs
    "fp32": {},
    "depth": {"with_depth": True},
    "dynamic": {"batch": "dynamic", "with_depth": True},
    "graph": {"plan": threshold_ladder()},
    "host": {"plan": threshold_ladder(), "dispatch": "host"},
    "fp16": {"precision": "fp16", "min_agreement": 0.9},
    "int8": {"precision": "int8", "allow_worse": True, "limit": 12},
    "w8": {"precision": "w8", "allow_worse": True},
    "w4": {"precision": "w4", "allow_worse": True},
}
MISSING = {("digits-expert", "w4")}  # misses its gate: `tests/exporters/onnx/low/test_weights.py`
HERE = Runtime(
    "onnxruntime", "here", (0, 99)
)  # this environment's own: the newest one that is tested everywhere
Bundles = Callable[[str], Path]


@pytest.fixture(scope="module")
def bundles(exported: Callable[..., Path], calibration_folder: Path) -> Iterator[Bundles]:
    with exported_cases(BUNDLES, exported, calibration_folder) as bundle:
        yield bundle


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(random_model(make_config()), random_pixels(make_config(), IMAGES, seed=5))


@pytest.fixture(scope="module")
def command() -> list[str]:
    """The interpreter of the oldest runtime's environment."""
    if not is_made(OLDEST):
        pytest.skip("build/runtimes/ has no environment of the oldest runtime; `make test` makes it")
    return environment(OLDEST)


def test_every_form_is_tested_here() -> None:
    assert BUNDLES.keys() == FORMS.keys()


@pytest.mark.parametrize("form", [form for form in FORMS if FORMS[form].get("precision") is None])
def test_every_form_runs_in_the_oldest_and_the_newest(
    form: str, bundles: Bundles, reference: Reference, command: list[str]
) -> None:
    manifest, expected = reference.expected(bundles(form))
    for runtime, interpreter in ((OLDEST, command), (HERE, [sys.executable])):
        ran = run(runtime, interpreter, bundles(form), reference.pictures)
        found = judge(manifest, expected, ran.outputs)
        assert found.problems == () and found.images >= IMAGES / 2
        assert runtime is HERE or ran.version == OLDEST.version


@pytest.mark.parametrize("form", ["fp16", "int8"])
def test_the_oldest_and_the_newest_round_alike(
    form: str, bundles: Bundles, reference: Reference, command: list[str]
) -> None:
    """Random models are too far from the reference to tell; the table has the trained ones."""
    commands = [(OLDEST, command), (HERE, [sys.executable])]
    old, new = (
        run(one, words, bundles(form), reference.pictures).outputs["logits"] for one, words in commands
    )
    pairs = LogitPairs()
    pairs.add(new, old)
    assert pairs.median_snr_db() >= GATES[form].snr_db


@pytest.mark.parametrize("form", FORMS)
def test_the_page_has_every_runtime_and_is_green_from_the_lowest_on(form: str, bundles: Bundles) -> None:
    """The manifest states the lowest release; the table shows a bundle of the form that runs there."""
    lowest = lowest_of(bundles(form), open_manifest(bundles(form)))
    tables = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    heads = [place for place, row in enumerate(tables) if row[0] == "| runtime"]
    assert len(heads) == len(MODELS)
    for model, head in zip(MODELS, heads, strict=True):
        rows = tables[head + 2 : head + 2 + len(RUNTIMES)]
        assert [row[0].removeprefix("| ") for row in rows] == [title(runtime) for runtime in RUNTIMES]
        column = [cell.rstrip(" |") for cell in tables[head]].index(form)
        cells = [(runtime, row[column].rstrip(" |")) for runtime, row in zip(RUNTIMES, rows, strict=True)]
        for runtime, cell in cells:
            if cell == NO_BUNDLE:
                assert (model, form) in MISSING
            else:
                assert cell == f"needs {lowest}" if runtime.is_older_than(lowest) else float(cell) < np.inf


def test_pictures_use_every_bucket_and_one_overflows(bundles: Bundles, reference: Reference) -> None:
    """Otherwise the test above would not see a wrong dispatch."""
    _, expected = reference.expected(bundles("graph"))
    assert {*expected.bucket.tolist()} == {0, 1, 2} and 0 < expected.overflow.sum() < IMAGES


def right_outputs(expected: Expected) -> dict[str, Any]:
    return {name: getattr(expected, name).copy() for name in ("logits", "depth", "bucket", "overflow")}


@pytest.mark.parametrize(
    ("name", "problem"),
    [("logits", "logits differ by"), ("depth", "depth of 1"), ("bucket", "bucket of 1"), ("overflow", "overflow of")],
)  # fmt: skip
def test_a_difference_in_fp32_is_found(
    name: str, problem: str, bundles: Bundles, reference: Reference
) -> None:
    manifest, expected = reference.expected(bundles("graph"))
    outputs = right_outputs(expected)
    assert judge(manifest, expected, outputs).problems == ()
    row = int(np.flatnonzero(expected.clear)[0])
    outputs[name][row] = outputs[name][row] != 1 if name == "overflow" else outputs[name][row] + 1
    assert any(problem in found for found in judge(manifest, expected, outputs).problems)
    outputs["logits"] = outputs["logits"] * np.nan
    assert judge(manifest, expected, outputs).max_abs == np.inf
    del outputs["bucket"]
    assert judge(manifest, expected, outputs).problems == ("no output 'bucket'",)


def test_the_gate_judges_classes_tokens_and_logits_below_fp32(bundles: Bundles, reference: Reference) -> None:
    manifest, expected = reference.expected(bundles("fp16"))
    right = right_outputs(expected)
    assert judge(manifest, expected, right).problems == ()
    flipped = {**right, "logits": -right["logits"]}
    assert len(judge(manifest, expected, flipped).problems) == 2  # classes, error
    shallow = {**right, "depth": np.zeros_like(right["depth"])}
    assert len(judge(manifest, expected, shallow).problems) == manifest.config.num_steps


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import sys; print('Fail: unsupported IR version', file=sys.stderr); sys.exit(3)", "unsupported IR version"),
        ("raise RuntimeError('no such operator')", "RuntimeError: no such operator"),
        ("pass", "exit status 0, without results"),
        ("import time; time.sleep(60)", "not done after 1 s"),
    ],
    ids=["abort", "status", "exception", "nothing", "hangs"],
)  # fmt: skip
def test_how_a_process_ends_is_the_cell(code: str, reason: str, tmp_path: Path) -> None:
    patience_s = 1 if "sleep" in code else 60
    with pytest.raises(Failed, match=reason):
        run(OLDEST, [sys.executable, "-c", code], tmp_path, np.zeros((1, 8, 8, 3), np.uint8), patience_s)


def test_a_signal_is_named_with_the_last_error() -> None:
    assert how_it_ended(-6, "terminate called\nwhat(): an Error\nbye\n") == "SIGABRT: what(): an Error"
    assert how_it_ended(-11, "") == "SIGSEGV"


def test_runtimes_are_chosen_by_package_version_or_node() -> None:
    assert chosen([], []) == RUNTIMES
    assert chosen(["onnxruntime==1.16.3"], []) == (OLDEST,)
    assert all(one.pythons for one in chosen([], [NODE])) and len(chosen([NODE], [])) == 4
    with pytest.raises(ValueError, match=r"onnxruntime==1\.2\.3.*expected one of: .*openvino"):
        chosen(["onnxruntime==1.2.3"], [])
