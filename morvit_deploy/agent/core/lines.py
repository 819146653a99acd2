"""JSON lines on stdout. No numpy: the agent must be able to report that it is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TextIO


def own_stdout() -> TextIO:
    """Stdout for replies alone: whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def say(answers: TextIO, answer: Mapping[str, Any]) -> None:
    """One JSON line, at once."""
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
