"""Traces share what PyTorch's exporter builds anew each time; a program's own exports do not."""

from __future__ import annotations

import pytest
from onnxscript.rewriter import _matcher
from torch.onnx._internal.exporter._registration import ONNXRegistry

from morvit_deploy.exporters.onnx.graphs import upstream
from morvit_deploy.exporters.onnx.graphs.upstream import quick_traces


def test_one_table_inside_and_the_library_s_own_after() -> None:
    own = vars(ONNXRegistry)["from_torchlib"], vars(_matcher.SimplePatternMatcher)["match"]
    with quick_traces():
        first = ONNXRegistry().from_torchlib(opset_version=18)
        assert ONNXRegistry().from_torchlib(opset_version=18) is first
        assert ONNXRegistry().from_torchlib(opset_version=20) is not first
    with quick_traces():
        assert ONNXRegistry.from_torchlib(opset_version=18) is first
    assert (vars(ONNXRegistry)["from_torchlib"], vars(_matcher.SimplePatternMatcher)["match"]) == own


def test_restored_after_an_error() -> None:
    own = vars(ONNXRegistry)["from_torchlib"]
    with pytest.raises(ValueError, match="in the trace"), quick_traces():
        raise ValueError("in the trace")
    assert vars(ONNXRegistry)["from_torchlib"] is own


def test_other_releases_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_classes", lambda: (None, type("Matcher", (), {})))
    with quick_traces():
        pass
