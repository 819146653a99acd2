"""Answers are finite numbers, or an error says where they are not. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import AnswerError

DAMAGED = "the checkpoint is damaged or its weights are too large"


def check_finite(values: NDArray[Any], what: str, advice: str = DAMAGED) -> None:
    """AnswerError if a number is NaN or infinite; `what` names the values and where they come from."""
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise AnswerError(
            f"{what}: got NaN or Inf in {broken} of {values.size}, expected finite numbers; {advice}"
        )
