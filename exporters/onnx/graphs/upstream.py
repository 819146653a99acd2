"""Work that PyTorch's exporter and onnxscript repeat for each trace, done once. The graphs are the same.

PyTorch parses 500 functions to build its table of ONNX operators. onnxscript lists all nodes of the graph for each
pattern with several outputs at each node, before it looks at the node's operator. PyTorch traces each captured
program a second time to decompose operators that have no ONNX form, also where all have one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_tables: dict[tuple[Any, ...], Any] = {}  # arguments of `from_torchlib` to what it returned


@contextmanager
def quick_traces() -> Iterator[None]:
    """Save that work inside the block; nothing is changed where a release has these functions elsewhere."""
    replaced: list[tuple[Any, str, Any]] = []

    def replace(kind: Any, name: str, made: Callable[[Any], Any]) -> None:
        if kind is not None and name in vars(kind):
            replaced.append((kind, name, vars(kind)[name]))
            setattr(kind, name, made(getattr(kind, name)))

    registry, matcher, passes = _upstream()
    try:
        replace(registry, "from_torchlib", _built_once)
        replace(matcher, "match", _by_operator)
        replace(passes, "decompose_with_registry", _where_needed)
        yield
    finally:
        for kind, name, own in replaced:
            setattr(kind, name, own)


def _built_once(build: Callable[..., Any]) -> Any:
    """The tables are shared by traces only: a program may register operators of its own in others."""

    def from_torchlib(*given: Any, **named: Any) -> Any:
        key = (*given, *sorted(named.items()))
        if key not in _tables:
            _tables[key] = build(*given, **named)
        return _tables[key]

    return staticmethod(from_torchlib)


def _by_operator(match: Callable[..., Any]) -> Any:
    """A pattern begins at a node of its first operator, which `match` itself checks last."""

    def at(self: Any, model: Any, graph: Any, node: Any, **settings: Any) -> Any:
        first, *_ = self.pattern.output_nodes
        if not first.op.matches(node.op_type):
            return None
        return match(self, model, graph, node, **settings)

    return at


def _where_needed(decompose: Callable[..., Any]) -> Any:
    """A program is traced again only if that may change it."""

    def decompose_with_registry(program: Any, registry: Any) -> Any:
        return program if _is_decomposed(program, registry) else decompose(program, registry)

    return decompose_with_registry


def _is_decomposed(program: Any, registry: Any) -> bool:
    """Whether decomposing leaves a program as it is: each node is needed, changes no input and has an ONNX form."""
    held = {decompositions[0].fx_target for decompositions in registry.functions.values() if decompositions}
    return all(_is_kept(node, held) for node in program.graph.nodes if node.op == "call_function")


def _is_kept(node: Any, held: set[Any]) -> bool:
    if node.target is operator.getitem:
        return True
    schema = getattr(node.target, "_schema", None)
    return bool(node.users) and node.target in held and schema is not None and not schema.is_mutable


def _upstream() -> tuple[Any, Any, Any]:
    """PyTorch's table of operators, onnxscript's matcher and PyTorch's passes; None for what a release has not."""
    registry: Any = None
    matcher: Any = None
    passes: Any = None
    with suppress(ImportError):
        from torch.onnx._internal.exporter._registration import ONNXRegistry as registry
    with suppress(ImportError):
        from onnxscript.rewriter._matcher import SimplePatternMatcher as matcher
    with suppress(ImportError):
        from torch.onnx._internal.exporter import _fx_passes as passes
    return registry, matcher, passes
