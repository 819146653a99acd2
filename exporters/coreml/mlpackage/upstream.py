"""Work that coremltools repeats for each of its passes and needs once or not at all. The packages are the same.

At each end of a `with block:` it follows every value back to compressed weights, also in a program that has none; it
builds the description of a type for each question about it; and it prints the program for a log that is off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any

from morvit_deploy.exporters.replacing import replacing

COMPRESSED = "constexpr_"  # operations whose results stand for compressed weights begin with it


@contextmanager
def quick_passes() -> Iterator[None]:
    """Save that work inside the block; nothing is changed where a release has these functions elsewhere."""
    blocks, types = _owners()
    with replacing(
        (blocks, "_propagate_nonreplaceable_vars", _where_any_is_compressed),
        (blocks, "indented_str", _unprinted),
        (types, "get_type_info", _described_once),
    ):
        yield


def _where_any_is_compressed(propagate: Callable[[Any], None]) -> Callable[[Any], None]:
    """A function's block without compressed weights has no value that depends on them."""

    @wraps(propagate)
    def needed(block: Any) -> None:
        if block.outer_op is not None or _may_depend(block.operations):
            propagate(block)

    return needed


def _may_depend(operations: Iterable[Any]) -> bool:
    """Is among them what `propagate` looks for, or a value for which it found something before?"""
    for operation in operations:
        if operation.blocks or operation.op_type.startswith(COMPRESSED):
            return True
        for value in operation.outputs or ():
            if value.nonreplaceable_vars_upstream:
                return True
    return False


def _unprinted(printed: Callable[..., str]) -> Callable[..., str]:
    @wraps(printed)
    def name(block: Any, *_: Any, **__: Any) -> str:
        return str(block.name)

    return name


def _described_once(describe: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[Any, Any] = {}  # types are classes, and what describes one does not change

    @wraps(describe)
    def described(kind: Any) -> Any:
        try:
            return known[kind]
        except (KeyError, TypeError):  # not seen yet; not hashable
            found = describe(kind)
        with suppress(TypeError):
            known[kind] = found
        return found

    return described


def _owners() -> tuple[Any, Any]:
    """coremltools' class of blocks and its module of questions about types; None for one that is elsewhere."""
    blocks: Any = None
    types: Any = None
    with suppress(ImportError):
        from coremltools.converters.mil.mil import Block

        blocks = Block
    with suppress(ImportError):
        from coremltools.converters.mil.mil.types import type_mapping

        types = type_mapping
    return blocks, types
