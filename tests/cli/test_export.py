"""`export` on the command line, and broken checkpoints given to every command that takes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptive_plans import depth_plan, threshold_plan
from commands import answer, refused, run
from safetensors.torch import load_file, save_file
from tiny_models import make_config, make_fields


def broken_json(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text('{"format": "morvit/1",')


def impossible_value(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps(make_fields(num_heads=3)))


def truncated_weights(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def nan_weights(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["norm.weight"] = torch.full((16,), float("nan"))
    save_file(tensors, checkpoint / "model.safetensors")


def no_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()


SPOILS = {
    broken_json: "config.json is not a JSON file",
    impossible_value: "num_heads: got 3, expected a divisor of embed_dim 16",
    truncated_weights: "is not a complete safetensors file",
    nan_weights: "not finite: norm.weight has 16 NaN or infinite values of 16",
    no_weights: "model.safetensors is missing",
}


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("command", ["export", "verify", "inspect"])
def test_a_broken_checkpoint_is_one_message(
    tiny_bundle: Path, checkpoint: Path, inside: Path, command: str, spoil: Any
) -> None:
    spoil(checkpoint)
    words = {
        "verify": ["verify", tiny_bundle, "--checkpoint", checkpoint],
        "export": ["export", checkpoint, "-o", "out"],
    }
    assert SPOILS[spoil] in refused(*words.get(command, [command, checkpoint]))
    assert list(inside.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "toaster"], "got target 'toaster'; this version exports to: onnx"),
        (["--batch", "0"], "--batch: got '0', expected a positive number or `dynamic`"),
        (["--batch", "two"], "--batch: got 'two'"),
        (["--images", "absent"], "absent is not a folder of images"),
        (["--input", "uint16"], "--input"),
        (["--limit", "0"], "--limit"),
        (["--form", "sparse"], "--form"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_export_refuses_bad_options(
    tiny_checkpoint: Path, inside: Path, options: list[str], words: str
) -> None:
    assert words in refused("export", tiny_checkpoint, "-o", "out", *options)
    assert list(inside.iterdir()) == []


def test_export_refuses_a_missing_checkpoint(inside: Path) -> None:
    assert "absent does not exist" in refused("export", "absent")
    assert "no checkpoint given" in refused("export")
    assert list(inside.iterdir()) == []


def test_export_refuses_an_existing_output(
    tiny_checkpoint: Path, copied_bundle: Path, tmp_path: Path
) -> None:
    before = (copied_bundle / "manifest.json").read_bytes()
    assert "pass --force" in refused("export", tiny_checkpoint, "-o", copied_bundle)
    assert (copied_bundle / "manifest.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("mine")
    assert "no manifest.json" in refused("export", tiny_checkpoint, "-o", tmp_path / "mine", "--force")
    assert (tmp_path / "mine" / "work.txt").read_text() == "mine"


def test_export_refuses_an_unwritable_place(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "cannot write to" in refused("export", tiny_checkpoint, "-o", tmp_path / "file" / "out")


def test_export_in_a_checkpoint_folder_then_all_defaults(
    checkpoint: Path, image_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint)
    told = answer("export", "--target", "onnx")
    bundle = checkpoint / "build" / "a checkpoint-onnx"
    assert Path(told["bundle"]) == bundle.relative_to(checkpoint)
    assert told["manifest"]["parity"]["passed"] is True
    assert (bundle / "manifest.json").is_file()
    assert answer("verify")["passed"] is True
    assert answer("predict", image_files[0])["predictions"][0]["bucket"] == "topk"


def test_a_bundle_given_as_a_checkpoint_is_told_apart(tiny_bundle: Path) -> None:
    assert "is a bundle; give the checkpoint" in refused("export", tiny_bundle)


def test_a_checkpoint_given_as_a_bundle_is_told_apart(tiny_checkpoint: Path) -> None:
    assert "is a checkpoint" in refused("bench", tiny_checkpoint)


# plans -----------------------------------------------------------------------------------------------------

LADDER = threshold_plan(make_config(), (0.1, 0.0, 0.2), [(9, 5, 2)])
ALONE = threshold_plan(make_config(), (1e30, None, None), [])


def of_another(folder: Path) -> str:
    (folder / "plan.json").write_text(LADDER.model_copy(update={"checkpoint": "0" * 64}).to_json())
    return "the plan expects 000000000000…); run `morvit-deploy calibrate` on this checkpoint"


def for_another_routing(folder: Path) -> str:
    depths = depth_plan(make_config(routing="token_choice"), [(16, 9, 5, 3, 1)])
    (folder / "plan.json").write_text(depths.to_json())
    return "mode: got 'depth', expected topk or threshold"


def for_another_size(folder: Path) -> str:
    larger = threshold_plan(make_config(patch_size=4), (0.1, 0.0, 0.2), [(9, 5, 2)])
    (folder / "plan.json").write_text(larger.to_json())
    return "does not fit the checkpoint"


def missing(folder: Path) -> str:
    return "plan.json: No such file or directory; a plan is a JSON file that `morvit-deploy calibrate` writes"


def a_folder(folder: Path) -> str:
    (folder / "plan.json").mkdir()
    return "cannot read"


def garbage(folder: Path) -> str:
    (folder / "plan.json").write_text("{'format':")
    return "expected a morvit-plan/1 plan"


def a_config(folder: Path) -> str:
    (folder / "plan.json").write_text(json.dumps(make_fields()))
    return "is not a morvit-plan/1 plan"


PLANS = [of_another, for_another_routing, for_another_size, missing, a_folder, garbage, a_config]


@pytest.mark.parametrize("spoil", PLANS, ids=lambda spoil: spoil.__name__)
def test_a_plan_that_cannot_be_used_is_one_message(
    tiny_checkpoint: Path, inside: Path, tmp_path: Path, spoil: Any
) -> None:
    words = spoil(tmp_path)
    assert words in refused("export", tiny_checkpoint, "-o", "out", "--plan", tmp_path / "plan.json")
    assert list(inside.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dispatch", "host"], "--dispatch sets who chooses between the buckets of a plan; give --plan"),
        (["--plan", "plan.json", "--dispatch", "disk"], "--dispatch"),
        (["--plan", "plan.json", "--form", "masked"], "got 'masked' with a plan"),
        (["--plan", "plan.json", "--min-agreement", "1.5"], "--min-agreement"),
        (["--target", "coreml", "--calibration-limit", "9"], "target coreml needs no calibration"),
        (
            ["--target", "coreml", "--precision", "fp16", "--calibration-limit", "9"],
            "target coreml needs no calibration",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_go_together_are_refused(
    tiny_checkpoint: Path, inside: Path, options: list[str], words: str
) -> None:
    (inside / "plan.json").write_text(LADDER.to_json())
    assert words in refused("export", tiny_checkpoint, "-o", "out", *options)
    assert [path.name for path in inside.iterdir()] == ["plan.json"]


def test_a_plan_of_one_bucket_leaves_nothing_to_choose(tiny_checkpoint: Path, inside: Path) -> None:
    (inside / "plan.json").write_text(ALONE.to_json())
    words = ["export", tiny_checkpoint, "-o", "out", "--plan", "plan.json", "--dispatch", "host", "--json"]
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "nothing to choose" in " ".join(result.stderr.split())
    manifest = json.loads(result.stdout)["manifest"]
    assert manifest["dispatch"] == "single"
    assert manifest["plan"]["thresholds"] == [1e30, None, None]
    assert manifest["parity"]["routing_gap"]["tolerance"] is None, "an approximation is measured"
