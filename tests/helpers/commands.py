"""Runs the command line inside the test process."""

from __future__ import annotations

import json
import re
from typing import Any

from typer.testing import CliRunner, Result

from morvit_deploy.cli import app

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PLAIN = {"COLUMNS": "200", "NO_COLOR": "1"}  # a wide terminal without colours: no message is wrapped


def run(*words: object) -> Result:
    return CliRunner(env=PLAIN).invoke(app, [str(word) for word in words])


def refused(*words: object, status: int = 2) -> str:
    """The one message of a command that refuses its input."""
    result = run(*words)
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len(re.findall(r"^error: |^Error: |─ Error ─", ANSI.sub("", result.stderr), re.M)) == 1, (
        result.stderr
    )
    return " ".join(ANSI.sub("", result.stderr).split())


def answer(*words: object) -> Any:
    """The one JSON document on stdout."""
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
