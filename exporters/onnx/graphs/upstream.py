"""Work that PyTorch's exporter and onnxscript repeat for each trace, done once. The graphs are the same.

PyTorch parses 500 functions to build its table of ONNX operators. onnxscript lists all nodes of the graph for each
pattern with several outputs at each node, before it looks at the node's operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from morvit_deploy.exporters.replacing import replacing

_tables: dict[tuple[Any, ...], Any] = {}  # arguments of `from_torchlib` to what it returned


@contextmanager
def quick_traces() -> Iterator[None]:
    """Save that work inside the block; nothing is changed where a release has these functions elsewhere."""
    registry, matcher = _classes()
    with replacing((registry, "from_torchlib", _built_once), (matcher, "match", _by_operator)):
        yield


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


def _classes() -> tuple[Any, Any]:
    """PyTorch's table of operators and onnxscript's matcher; None for one that this release does not have."""
    registry: Any = None
    matcher: Any = None
    with suppress(ImportError):
        from torch.onnx._internal.exporter._registration import ONNXRegistry as registry
    with suppress(ImportError):
        from onnxscript.rewriter._matcher import SimplePatternMatcher as matcher
    return registry, matcher
