"""All formats of a small model: what is made, what runs here, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import answer, refused
from places import EXAMPLES

from morvit_deploy.errors import ConfigError, MorvitError, TargetError
from morvit_deploy.measuring.compare.formats import compare_formats

QUICK: dict[str, Any] = {"threads": 1, "runs": 10, "blocks": 2, "warmup": 0, "starts": 1}
MODEL, IMAGES = EXAMPLES / "digits-expert", EXAMPLES / "digits-test"


def test_targets_and_precisions_in_one_table() -> None:
    result = compare_formats(
        MODEL, targets=["onnx", "trt"], precisions=["fp32", "w8"], images=IMAGES, timing=QUICK
    )
    assert [one.name for one in result.made] == ["onnx fp32", "onnx w8", "trt fp32", "trt w8"]
    onnx, small, trt, none = result.made
    assert onnx.measured is not None and onnx.measured.latency_ms["p50"] > 0
    assert onnx.agreement == 1.0 and onnx.max_abs is not None and onnx.max_abs < 1e-4
    assert onnx.top1 is not None and onnx.top1 > 0.9
    assert small.file_bytes is not None and onnx.file_bytes is not None
    assert small.file_bytes < 0.5 * onnx.file_bytes and small.measured is not None
    assert trt.measured is None and trt.remark.startswith("not run here: ") and trt.agreement == 1.0
    assert none.file_bytes is None and "target trt has fp32" in none.remark
    assert "3 of 4 formats were made and verified; " in result.report().result
    assert "onnx w8 is the smallest" in result.report().result


def test_a_format_that_fails_its_gate_is_a_row(tiny_checkpoint: Path) -> None:
    result = compare_formats(tiny_checkpoint, targets=["onnx"], precisions=["int8", "fp32"], timing=QUICK)
    failed, good = result.made
    assert failed.file_bytes is None and "images" in failed.remark
    assert good.measured is not None and good.top1 is None


def test_bad_input(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="did you mean 'onnx'"):
        compare_formats(tiny_checkpoint, targets=["onxn"], precisions=["fp32"])
    with pytest.raises(ConfigError, match=r"got 'fp61', expected some of .*; did you mean 'fp16'"):
        compare_formats(tiny_checkpoint, targets=["onnx"], precisions=["fp61"])
    with pytest.raises(MorvitError):
        compare_formats(tmp_path, targets=["onnx"], precisions=["fp32"])
    assert "run one after the other" in refused(
        "compare", tiny_checkpoint, "--targets", "onnx", "--baselines", "table2"
    )
    assert "export one checkpoint; got 2 folders" in refused(
        "compare", tiny_checkpoint, tiny_checkpoint, "--targets", "onnx"
    )
    assert "is a bundle; give the checkpoint" in refused("compare", tiny_bundle, "--targets", "onnx")


def test_the_command(tiny_checkpoint: Path, tmp_path: Path) -> None:
    quick = ("--threads", "1", "--runs", "10", "--blocks", "2", "--warmup", "0", "--starts", "1")
    out = tmp_path / "formats.json"
    found = answer("compare", tiny_checkpoint, "--precisions", "fp32,w8", "-o", out, *quick)
    assert [one["precision"] for one in found["formats"]] == ["fp32", "w8"]
    assert found["format"] == "morvit-compare/1" and out.is_file()
