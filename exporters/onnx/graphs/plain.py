"""One bucket of a written bundle as a plain graph, for proofs and for running it alone. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.onnx.graphs.graphs import (
    branches,
    computed_values,
    copy_of,
    drop_unread,
    every_graph,
    rename,
)
from morvit_deploy.exporters.onnx.graphs.names import graph_files

RESULTS = ("logits", "features", "tokens", "overflow", "depth")


def read_graph(path: Path, *, weights: bool = False) -> onnx.ModelProto:
    """Load a graph file; BundleError when it cannot be loaded, or its weights cannot."""
    try:
        return onnx.load(path, load_external_data=weights)
    except Exception as error:  # onnx and protobuf raise types of their own
        raise BundleError(f"cannot load {path}: {error}; export the bundle again") from error


def plain_graph(folder: Path, manifest: Manifest, bucket: str, *, weights: bool = False) -> onnx.ModelProto:
    """The nodes of one bucket from the files, without an If; `weights` also loads weights.bin."""
    files = graph_files(manifest.dispatch, manifest.plan)
    names = [files["stem"], files[bucket]] if manifest.dispatch == "host" else [files["model"]]
    parts = [read_graph(folder / name, weights=weights) for name in names]
    return one_bucket(parts, bucket, RESULTS, own=True) if manifest.plan.adaptive else parts[0]


def one_bucket(
    parts: Sequence[onnx.ModelProto], bucket: str, results: Iterable[str], *, own: bool = False
) -> onnx.ModelProto:
    """The graph of one bucket, without any If, from the graphs of a bundle: the same nodes, the same weights.

    `parts` is the self-dispatching graph, or the stem's and the bucket's trunk; the first becomes the result if they
    are the caller's `own`. Probes lose the bucket's name.
    """
    model = parts[0] if own else copy_of(parts[0])
    graph = model.graph
    nodes = [node for part in parts for node in _inlined(part.graph, graph, bucket)]
    outputs = {value.name: value for part in parts for value in part.graph.output}
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(outputs[name] for name in results if name in outputs)
    drop_unread(graph)
    inside = {f"{bucket}/{value}": value for value in _probes(graph, bucket)}
    rename(graph, inside)
    return model


def _probes(graph: onnx.GraphProto, bucket: str) -> list[str]:
    """Names of the bucket's probes, which have a dot in them; other values have numbers for names."""
    inside = [
        value.removeprefix(f"{bucket}/") for value in computed_values(graph) if value.startswith(f"{bucket}/")
    ]
    return [value for value in inside if "." in value]


def _inlined(graph: onnx.GraphProto, main: onnx.GraphProto, bucket: str) -> Iterator[onnx.NodeProto]:
    """A graph's nodes, with each If replaced by its branch to `bucket`; initializers are added to `main`."""
    _add_initializers(graph, main)
    for node in graph.node:
        if node.op_type != "If":
            yield node
            continue
        branch = _branch_to(node, bucket)
        yield from _inlined(branch, main, bucket)
        for inner, outer in zip(branch.output, node.output, strict=True):
            yield onnx.helper.make_node("Identity", [inner.name], [outer], name=f"Identity_{outer}")


def _add_initializers(graph: onnx.GraphProto, main: onnx.GraphProto) -> None:
    """Add a graph's initializers to `main`; BundleError if one hides another of its name, which is not the same."""
    known = {init.name: init for init in main.initializer}
    for init in graph.initializer:
        if init.name not in known:
            main.initializer.append(init)
        elif init != known[init.name]:
            raise BundleError(
                f"the initializer {init.name!r} of the graph {graph.name!r} hides another of that name; "
                "export the bundle again"
            )


def _branch_to(choice: onnx.NodeProto, bucket: str) -> onnx.GraphProto:
    """The branch of an If that contains the bucket; the else branch if neither does."""
    for branch in branches(choice):
        if any(inner.name == bucket for inner in every_graph(branch)):
            return branch
    otherwise: onnx.GraphProto = next(a.g for a in choice.attribute if a.name == "else_branch")
    return otherwise
