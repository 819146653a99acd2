"""British spellings in a text, whose code spans are left out."""

from __future__ import annotations

import re

SPAN = re.compile(r"`([^`\n]+)`")
BRITISH = re.compile(
    r"\b\w*(?:(?:normal|optim|quant|recogn|initial|summar|serial)is(?:e|ed|es|er|ing|ation)"
    r"|colour|grey|centre|behaviour|judgement|licence)\w*"
)


def british(text: str) -> list[str]:
    """The words of a text that have American spellings of their own."""
    return [match[0] for match in BRITISH.finditer(SPAN.sub("", text))]
