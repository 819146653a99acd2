"""Parameters, MACs and bytes of graphs made by hand."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from comparisons import conv_graph

from morvit_deploy.errors import TargetError
from morvit_deploy.measuring.compare.baselines.graph_facts import graph_facts
from morvit_deploy.measuring.compare.running.runtimes import open_runtime, taken_by


def test_a_convolution_and_a_linear_layer_are_counted(tmp_path: Path) -> None:
    graph = conv_graph(tmp_path / "g.onnx")
    facts = graph_facts(graph)
    assert facts.parameters == 4 * 3 * 9 + 4 * 5
    assert facts.macs == 8 * 8 * 4 * 3 * 9 + 4 * 5
    assert facts.file_bytes == graph.stat().st_size


def test_weights_beside_the_file_count(tmp_path: Path) -> None:
    graph, apart = conv_graph(tmp_path / "g.onnx"), tmp_path / "apart.onnx"
    onnx.save_model(onnx.load(graph), apart, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert graph_facts(apart).file_bytes == apart.stat().st_size + (tmp_path / "w.bin").stat().st_size
    assert graph_facts(apart).parameters == graph_facts(graph).parameters


def test_macs_are_unknown_where_a_shape_is(tmp_path: Path) -> None:
    model = onnx.load(conv_graph(tmp_path / "g.onnx"))
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].ClearField("dim_value")
    onnx.save_model(model, tmp_path / "any.onnx")
    assert graph_facts(tmp_path / "any.onnx").macs is None
    with pytest.raises(TargetError, match="takes pictures of any size"):
        taken_by(tmp_path / "any.onnx")


def test_what_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"no graph")
    with pytest.raises(TargetError, match=r"g\.onnx cannot be read as an ONNX graph"):
        graph_facts(tmp_path / "g.onnx")
    with pytest.raises(TargetError, match=r"ONNX Runtime .* refuses .*g\.onnx"):
        open_runtime("onnxruntime", tmp_path / "g.onnx", 1)


def test_a_graph_that_takes_no_pictures(tmp_path: Path) -> None:
    model = onnx.load(conv_graph(tmp_path / "g.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    model.graph.initializer[0].dims[1] = 4
    model.graph.initializer[0].raw_data = b"\0" * (4 * 4 * 9 * 4)
    onnx.save_model(model, tmp_path / "four.onnx")
    with pytest.raises(TargetError, match=r"takes tensor\(float\) \[1, 4, 16, 16\], expected uint8"):
        taken_by(tmp_path / "four.onnx")


def test_how_many_pictures_a_graph_takes(tmp_path: Path) -> None:
    assert taken_by(conv_graph(tmp_path / "one.onnx")) == (16, False)
    assert taken_by(conv_graph(tmp_path / "any.onnx", batch="n")) == (16, True)
    with pytest.raises(TargetError, match="takes 8 pictures at once; export it for one, or for any number"):
        taken_by(conv_graph(tmp_path / "eight.onnx", batch=8))
