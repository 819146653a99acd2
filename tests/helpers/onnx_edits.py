"""A copy of a written ONNX bundle under change: graphs, weights, manifest. Hashes are made to fit afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from morvit_deploy.bundle.manifest import describe_files
from morvit_deploy.exporters.onnx.graphs import files
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph


class OnnxEdit:
    """The graphs of a bundle's folder by file name, with their weights, and the manifest as JSON."""

    def __init__(self, bundle: Path, inside: str = "") -> None:
        self.bundle, self.folder = bundle, bundle / inside
        self.models = {path.name: onnx.load(path) for path in sorted(self.folder.glob("*.onnx"))}
        self.manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())

    def save(self) -> None:
        """Write everything; the manifest lists the files as they are now."""
        with patch.object(files, "_check"):  # a broken graph is for `verify` to find
            files.write_graphs(self.folder, self.models)
        listed = describe_files(self.bundle, [file["path"] for file in self.manifest["files"]])
        self.manifest["files"] = [file.model_dump() for file in listed]
        (self.bundle / "manifest.json").write_text(json.dumps(self.manifest), encoding="utf-8")

    def graphs(self) -> list[onnx.GraphProto]:
        """All graphs and branches."""
        return [graph for model in self.models.values() for graph in every_graph(model.graph)]

    def nodes(self, op_type: str, inside: str = "") -> list[onnx.NodeProto]:
        """Nodes of one operator in a branch or file, in all of them without a name."""
        named = {file.removesuffix(".onnx"): model.graph for file, model in self.models.items()}
        graphs = [named[inside]] if inside in named else self.graphs()
        chosen = [graph for graph in graphs if inside in ("", graph.name) or inside in named]
        return [node for graph in chosen for node in graph.node if node.op_type == op_type]

    def maker(self, value: str) -> onnx.NodeProto:
        """The node that computes a value."""
        return next(node for graph in self.graphs() for node in graph.node if value in node.output)

    def readers(self, value: str) -> list[onnx.NodeProto]:
        """The nodes that read a value."""
        return [node for graph in self.graphs() for node in graph.node if value in node.input]

    def array(self, name: str) -> NDArray[Any]:
        """A copy of an initializer's values."""
        return numpy_helper.to_array(self._held(name)[0]).copy()

    def set(self, name: str, values: NDArray[Any]) -> None:
        """Other values for an initializer, wherever it is held."""
        for init in self._held(name):
            init.CopyFrom(numpy_helper.from_array(np.asarray(values), name))

    def change(self, name: str, change: Callable[[NDArray[Any]], Any]) -> None:
        """Change an initializer by a function of its values."""
        values = self.array(name)
        self.set(name, np.asarray(change(values)).astype(values.dtype))

    def own_constant(self, node: onnx.NodeProto, place: int, values: NDArray[Any]) -> None:
        """Let one node read a constant of its own at one input."""
        name = f"planted_{node.name}"
        main = next(iter(model for model in self.models.values() if node in self._every(model)))
        main.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        node.input[place] = name

    def constant(self, node: onnx.NodeProto, place: int) -> NDArray[Any]:
        """The constant that a node reads."""
        return self.array(node.input[place])

    def after(self, node: onnx.NodeProto, op_type: str, *more: NDArray[Any], **attributes: Any) -> None:
        """Put an operator with constant further inputs after a node's first output."""
        name = node.output[0]
        node.output[0] = f"{name}_before"
        planted = helper.make_node(op_type, [node.output[0]], [name], name=f"planted_{name}", **attributes)
        graph = next(graph for graph in self.graphs() if node in list(graph.node))
        graph.node.insert(list(graph.node).index(node) + 1, planted)
        for number, values in enumerate(more):
            graph.initializer.append(numpy_helper.from_array(values, f"{planted.name}_{number}"))
            graph.node[list(graph.node).index(planted)].input.append(f"{planted.name}_{number}")

    def _held(self, name: str) -> list[onnx.TensorProto]:
        found = [init for graph in self.graphs() for init in graph.initializer if init.name == name]
        assert found, f"no initializer {name!r}"
        return found

    def _every(self, model: onnx.ModelProto) -> list[onnx.NodeProto]:
        return [node for graph in every_graph(model.graph) for node in graph.node]


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Replace an attribute, or add it."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def edited_onnx(bundle: Path, folder: Path, change: Callable[[OnnxEdit], None], inside: str = "") -> Path:
    """A changed copy of a bundle in `folder`; `inside` is the folder of its graphs."""
    copy = Path(shutil.copytree(bundle, folder / "edited"))
    edit = OnnxEdit(copy, inside)
    change(edit)
    edit.save()
    return copy
