"""Names of functions and of their values. The standard library alone: benchmark projects carry this file."""

from __future__ import annotations

STEM, MAIN = "stem", "main"  # the function that runs before the bucket is known; the only one of a file


def plain_name(name: str) -> str:
    """A value's name inside a file of functions: Core ML takes no dots."""
    return name.replace(".", "_")
