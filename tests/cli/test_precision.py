"""`export --precision` and `verify` of such bundles on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import answer, refused, run
from PIL import Image
from tiny_models import make_config, random_model

from morvit_deploy.bundle import session
from morvit_deploy.exporters.onnx.low import lower
from morvit_deploy.exporters.onnx.low.speed import Speed
from morvit_deploy.model.checkpoint import save_checkpoint


@pytest.fixture(scope="module", autouse=True)
def no_clock() -> Iterator[None]:
    """Timings have no place in tests: every speed check answers the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            lower,
            "measure_speed",
            lambda floats, integers, plan, feeds: {b.name: Speed(2.0, 1.0, 0.5) for b in plan.buckets},
        )
        yield


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory, calibration_folder: Path) -> Path:
    """An int8 bundle, made by the command line; its checkpoint is beside it."""
    folder = tmp_path_factory.mktemp("int8")
    save_checkpoint(random_model(make_config(embed_dim=64, mlp_dim=128, num_heads=4)), folder / "checkpoint")
    words = [
        "--precision",
        "int8",
        "--images",
        calibration_folder,
        "--limit",
        12,
        "--max-drop",
        100,
        "--smooth",
    ]
    result = run("export", folder / "checkpoint", "-o", folder / "bundle", *words, "--allow-worse")
    assert result.exit_code == 0, result.output
    for part in (
        "Made in int8",
        "ranges by percentile from 36 images, smoothed",
        "0.50×",
        "Fidelity in int8",
    ):
        assert part in result.stdout
    return folder / "bundle"


def test_verify_shows_what_it_keeps(int8: Path, calibration_folder: Path) -> None:
    words = ("verify", int8, "--checkpoint", int8.parent / "checkpoint", "--min-agreement", 0)
    result = run(*words, "--images", calibration_folder, "--limit", 12)
    assert result.exit_code == 0, result.output
    for part in ("Fidelity in int8", "logit SNR", "token agreement", "measured only", "gate: 0.00%"):
        assert part in result.stdout
    told = answer(*words)
    assert told["precision"] == "int8" and told["gate"] == {"tokens": 0.0, "top1": 0.0, "snr_db": 0.0}
    (seen,) = told["fidelity"]
    assert seen["images"] == 32 and len(seen["token_agreement"]) == len(seen["steps"]) == 3


def test_verify_and_predict_warn_where_products_saturate(
    int8: Path, calibration_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        ("verify", int8, "--checkpoint", int8.parent / "checkpoint", "--min-agreement", 0),
        ("predict", int8, calibration_folder / "00.png"),
    )
    for command in words:
        assert "saturate" not in run(*command).stderr, "it was made for this processor"
    monkeypatch.setattr(session, "kernel_warnings", lambda lowering: ("int8 products saturate",))
    for command in words:
        assert "warning: int8 products saturate" in run(*command).stderr


def test_a_missed_gate_is_exit_1_and_names_the_number(int8: Path) -> None:
    words = ("verify", int8, "--checkpoint", int8.parent / "checkpoint", "--min-agreement", "1.0")
    result = run(*words, "--json")
    told = json.loads(result.stdout)
    kept = all(share == 1 for one in told["fidelity"] for share in one["token_agreement"])
    assert not kept, "or choose another seed: these weights lose nothing in eight bits"
    assert result.exit_code == 1 and "expected at least 100.00%" in result.stderr


def test_predict_and_bench_and_inspect_take_it(int8: Path, calibration_folder: Path) -> None:
    picture = calibration_folder / "00.png"
    assert answer("predict", int8, picture)["predictions"][0]["bucket"] == "topk"
    told = answer("bench", int8, "--runs", 10, "--blocks", 2, "--starts", 1, "--threads", 1)
    assert told["bundles"][0]["precision"] == "int8"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "int8"], "only images like those it will meet show it: give --images DIR"),
        (["--precision", "int4"], "--precision"),
        (["--int8-flavor", "cpu"], "--int8-flavor: only int8 has this; precision is 'fp32'"),
        (["--calibration", "minmax"], "--calibration: only int8 has this"),
        (["--precision", "fp16", "--smooth"], "--smooth: only int8 has this; precision is 'fp16'"),
        (["--precision", "fp16", "--max-drop", "1"], "--max-drop: only int8 has this"),
        (["--calibration-limit", "9"], "--calibration-limit: fp32 needs no calibration"),
        (["--allow-worse"], "fp32 has no gate that could be missed"),
        (["--precision", "int8", "--images", "absent"], "absent is not a folder of images"),
        (["--precision", "int8", "--max-drop", "101"], "--max-drop"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_one_message(
    tiny_checkpoint: Path, inside: Path, options: list[str], words: str
) -> None:
    assert words in refused("export", tiny_checkpoint, "-o", "out", *options)
    assert list(inside.iterdir()) == []


def test_what_was_let_through_is_told(tiny_checkpoint: Path, inside: Path, monkeypatch: Any) -> None:
    folder = inside / "white"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (36, 36), (255, 255, 250 + number)).save(folder / f"{number}.png")
    monkeypatch.setattr(lower, "overall_ratio", lambda speeds, plan: 1.5)
    words = ["export", tiny_checkpoint, "-o", "out", "--precision", "int8", "--images", folder]
    assert "int8 takes 1.50 times as long as fp32" in refused(*words, status=1)
    result = run(*words, "--allow-worse")
    assert result.exit_code == 0, result.output
    assert "warning: the calibration images have mean (1.000, 1.000, 0.98" in result.stderr
    assert "warning: let through by --allow-worse: int8 takes 1.50 times" in result.stderr
