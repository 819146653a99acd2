"""The result of a command: tables for a person, one JSON document for a program."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from morvit_deploy.cli.shared.console import say, stdout

if TYPE_CHECKING:
    from morvit_deploy.report import Report


def emit(report: Report, data: Any, as_json: bool) -> None:
    """Print the result on stdout."""
    if as_json:
        is_unicode = stdout().encoding.startswith("utf")  # elsewhere signs are escaped, not replaced
        say(json.dumps(data, indent=2, ensure_ascii=not is_unicode, allow_nan=False))
    else:
        report.show(stdout())
