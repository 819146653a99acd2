"""Which step of the model each node of a written graph belongs to, and the MACs of each step.

A step ends at a value that the bundle names: the probes `embed`, `first`, `step{r}.state` and `layer{n}.state`. A
node belongs to the first step whose values need it. After the last of them, or in a baseline that names none, the
blocks are told apart by the names of their weights.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morvit_deploy.exporters.onnx.graphs.macs import BLOCK_PRODUCT, PRODUCTS, infer_shapes, node_macs

if TYPE_CHECKING:
    import onnx  # named only

STEM, FIRST, STEPS, LAST, HEAD = "stem", "first", "steps", "last", "head"
_NUMBERED = re.compile(r"(step|layer)(\d+)\.")
# between a weight and its product
_WIDENING = ("DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity")
_BLOCKS = {"first": FIRST, "cycle": STEPS, "last": LAST}  # first part of a weight's name to its step


@dataclass(frozen=True)
class Steps:
    """The steps of a graph in their order, and what each holds."""

    names: tuple[str, ...]
    of_value: Mapping[str, int]  # a value that a node computes, to the number of its step
    macs: tuple[int, ...]  # of one run, for each step


def find_steps(model: onnx.ModelProto, probes: Iterable[str]) -> Steps:
    """The steps of a plain graph (no branches) whose named values are `probes`, in the order of the model."""
    nodes = list(model.graph.node)
    makers = {name: number for number, node in enumerate(nodes) for name in node.output}
    names: list[str] = []
    of_node: dict[int, int] = {}

    def end(step: str, value: str) -> None:
        own = _needed(makers[value], nodes, makers, of_node) if value in makers else set()
        if own and step not in names:
            names.append(step)
        of_node.update(dict.fromkeys(own, len(names) - 1))

    for step, value in _ends(model.graph, probes):
        end(step, value)
    for value in _before_head(model.graph) if LAST in names else ():
        end(LAST, value)
    for output in ("logits", "features", "tokens"):  # the graph has one of them
        end(HEAD, output)
    for number, node in enumerate(nodes):  # read by no step: the outputs depth and overflow
        before = (of_node[makers[name]] for name in node.input if name in makers)
        of_node.setdefault(number, max(before, default=0))
    shapes = infer_shapes(model)
    macs = [0] * len(names)
    for number, node in enumerate(nodes):
        macs[of_node[number]] += node_macs(node, shapes)
    of_value = {name: of_node[number] for name, number in makers.items()}
    return Steps(tuple(names), of_value, tuple(macs))


def step_of(probe: str) -> str | None:
    """The step that a probe belongs to, as a report names it; None for a probe that ends none."""
    if found := _NUMBERED.match(probe):
        return f"{found[1]} {found[2]}"
    return {"embed": STEM, "first": FIRST, "depth.router_logits": "router"}.get(probe)


def weights_of(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], held: Container[str]) -> list[str]:
    """Initializers that a node reads, directly or through nodes that only widen or turn them."""
    found = []
    for name in node.input:
        while name not in held and name in makers and makers[name].op_type in _WIDENING:
            name = makers[name].input[0]
        if name in held:
            found.append(name)
    return found


def _ends(graph: onnx.GraphProto, probes: Iterable[str]) -> list[tuple[str, str]]:
    """Steps and the values that end them, in the order of the model; a step may have several."""
    named = [(step, probe) for probe in probes if (step := step_of(probe))]
    blocks: dict[str, str] = {}  # step to the value of its last product
    for node, weights in _products(graph):
        for weight in weights:
            if (step := _BLOCKS.get(weight.partition(".")[0])) is not None:
                blocks[step] = node.output[0]
    if any(_NUMBERED.match(probe) for _, probe in named):  # the cycle's steps are told apart already
        rest = blocks.pop(STEPS, None)
        blocks |= (
            {} if rest is None or LAST in blocks else {LAST: rest}
        )  # without probe: the layer of CLS alone
    return [*named, *((step, blocks[step]) for step in _BLOCKS.values() if step in blocks)]


def _before_head(graph: onnx.GraphProto) -> list[str]:
    """What the classifier's first product reads."""
    firsts = (node for node, weights in _products(graph) if any(w.startswith("classifier.") for w in weights))
    return [name for node in firsts for name in node.input][:1]


def _products(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, list[str]]]:
    """Products and the initializers they read."""
    makers = {name: node for node in graph.node for name in node.output}
    held = {init.name for init in graph.initializer}
    for node in graph.node:
        if node.op_type in (*PRODUCTS, BLOCK_PRODUCT):
            yield node, weights_of(node, makers, held)


def _needed(
    end: int, nodes: Sequence[onnx.NodeProto], makers: Mapping[str, int], taken: Mapping[int, int]
) -> set[int]:
    """Numbers of the nodes that a node depends on, itself included, without those of earlier steps."""
    found, waiting = set[int](), [end]
    while waiting:
        number = waiting.pop()
        if number in found or number in taken:
            continue
        found.add(number)
        waiting += [makers[name] for name in nodes[number].input if name in makers]
    return found
