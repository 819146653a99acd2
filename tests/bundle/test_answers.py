"""Answers that are not finite: an error that names bucket and runtime, wherever they come from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from morvit_deploy.bundle.answers import check_finite
from morvit_deploy.bundle.session import Session
from morvit_deploy.errors import AnswerError, CheckFailed

GOOD = np.zeros((3, 4), dtype=np.float32)


def session(runtime: str = "a runtime") -> Session:
    """Of three buckets; `check_answer` reads nothing else."""
    buckets = [SimpleNamespace(name=name) for name in ("b0", "b1", "full")]
    manifest: Any = SimpleNamespace(plan=SimpleNamespace(buckets=buckets), target="onnx", output="logits")
    runner: Any = SimpleNamespace(runtime=runtime)
    return Session(Path("bundle"), manifest, runner)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_number_that_is_not_finite(value: float, dtype: Any) -> None:
    with pytest.raises(
        AnswerError, match="scores: got NaN or Inf in 1 of 3, expected finite numbers; do this"
    ):
        check_finite(np.array([0.0, value, 1.0], dtype=dtype), "scores", "do this")
    assert issubclass(AnswerError, CheckFailed) and AnswerError.exit_status == 1


def test_the_largest_numbers_are_finite() -> None:
    for dtype in (np.float16, np.float32):
        check_finite(np.array([np.finfo(dtype).max, np.finfo(dtype).min]), "scores")
    check_finite(np.empty((0, 4)), "scores")


def test_the_row_names_bucket_and_runtime() -> None:
    bad = GOOD.copy()
    bad[1, 2:] = np.nan
    outputs = {"logits": bad, "bucket": np.array([0, 2, 1], dtype=np.int32)}
    session().check_answer(outputs, 0)
    session().check_answer(outputs, 2)
    with pytest.raises(
        AnswerError, match=r"logits in bucket 'full', run by a runtime: got NaN or Inf in 2 of 4, .*verify"
    ):
        session().check_answer(outputs, 1)
    with pytest.raises(AnswerError, match="in bucket 'b0', run by target onnx"):
        session(runtime="").check_answer({"logits": bad}, 1)


@pytest.mark.parametrize("number", [3, -1, 127])
def test_a_bucket_that_is_not(number: int) -> None:
    outputs = {"logits": GOOD, "bucket": np.array([number] * 3, dtype=np.int32)}
    with pytest.raises(AnswerError, match=f"got bucket {number} from a runtime, expected 0 … 2"):
        session().check_answer(outputs, 0)
