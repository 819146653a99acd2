"""`verify` on the command line, and damaged bundles given to every command that takes one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket_plans import EXPERT, threshold_ladder
from commands import answer, refused, run
from safetensors.torch import load_file, save_file


def test_verify_json_is_the_documents(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    told = answer("verify", tiny_bundle, "--checkpoint", tiny_checkpoint)
    assert told["passed"] is True
    assert set(told["routing_gap"]) >= {"max_abs", "top1_agreement"}
    assert told["router_agreement"] == [1.0, 1.0, 1.0]


def test_verify_prints_both_gaps(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    result = run("verify", tiny_bundle, "--checkpoint", tiny_checkpoint)
    assert result.exit_code == 0
    assert "routing gap" in result.stdout and "conversion gap" in result.stdout


def test_a_failed_verification_is_exit_1(tiny_bundle: Path, checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["head.bias"] += 1
    save_file(tensors, checkpoint / "model.safetensors")
    result = run("verify", tiny_bundle, "--checkpoint", checkpoint, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["passed"] is False
    assert "Traceback" not in result.stderr and "error:" in result.stderr


def test_verify_shows_what_each_bucket_was_tried_with(exported: Callable[..., Path]) -> None:
    bundle = exported(EXPERT, plan=threshold_ladder())
    words = ("verify", bundle, "--checkpoint", bundle.parent / "checkpoint")
    result = run(*words)
    assert result.exit_code == 0, result.output
    for part in (
        "unrolling gap",
        "as dispatched",
        "measured only",
        "Images in each bucket",
        "routing margin",
    ):
        assert part in result.stdout
    told = answer(*words)
    assert [bucket["name"] for bucket in told["buckets"]] == ["b0", "b1", "full"]
    rows = [line.split()[:4] for line in result.stdout.splitlines()]
    for bucket in told["buckets"]:
        assert [bucket["name"], *(str(bucket[key]) for key in ("served", "fitting", "judged"))] in rows


def test_too_little_agreement_is_exit_1_and_names_the_number(approximation: Path) -> None:
    words = ("verify", approximation, "--checkpoint", approximation.parent / "checkpoint")
    agreement = answer(*words)["routing_gap"]["top1_agreement"]
    result = run(*words, "--min-agreement", "1.0")
    assert result.exit_code == 1
    assert f"top-1 agreement {agreement:.1%}" in result.stderr
    assert "of the plan's model with the trained model, expected at least 100.0%" in result.stderr
    assert "--min-agreement" in refused(*words, "--min-agreement", "1.5")


def damaged(bundle: Path) -> str:
    (bundle / "weights.bin").write_bytes(b"short")
    return "weights.bin: 5 bytes"


def outside(bundle: Path) -> str:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"path": "weights.bin"', '"path": "../weights.bin"'))
    return "'../weights.bin'"


def no_manifest(bundle: Path) -> str:
    (bundle / "manifest.json").unlink()
    return "manifest.json"


@pytest.mark.parametrize("damage", [damaged, outside, no_manifest], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("command", ["verify", "predict", "bench"])
def test_a_damaged_bundle_is_one_message(
    copied_bundle: Path, tiny_checkpoint: Path, image_files: list[Path], command: str, damage: Any
) -> None:
    words = {
        "verify": ["--checkpoint", tiny_checkpoint],
        "predict": [image_files[0]],
        "bench": ["--device", "cpu"],
    }
    expected = damage(copied_bundle)
    assert expected in refused(command, copied_bundle, *words[command])


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_no_bundle_anywhere_is_one_message(inside: Path, tiny_checkpoint: Path, command: str) -> None:
    more = ["--checkpoint", tiny_checkpoint] if command == "verify" else []
    assert "no BUNDLE given" in refused(command, *more)
