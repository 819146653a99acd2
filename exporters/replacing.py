"""Replaces functions and values of other packages for the length of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Replacement = tuple[
    Any, str, Callable[[Any], Any]
]  # a class or module, a name in it, and what is made of its own


@contextmanager
def replacing(*replacements: Replacement) -> Iterator[None]:
    """Replace what stands under these names inside the block; an owner gets its own back.

    Nothing is changed where a release of the package has no such owner (None) or no such name.
    """
    replaced: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, made in replacements:
            if owner is not None and name in vars(owner):
                replaced.append((owner, name, vars(owner)[name]))
                setattr(owner, name, made(getattr(owner, name)))
        yield
    finally:
        for owner, name, own in replaced:
            setattr(owner, name, own)
