"""The command line: help, JSON, defaults, and one message with exit status 2 for every kind of bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_fields
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from morvit_deploy.cli import app
from morvit_deploy.model import MoRViT

COMMANDS = ["doctor", "init", "inspect", "export", "verify", "predict", "bench", "demo"]
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wide terminal without colours, so that no message is wrapped."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    yield


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: object, status: int = 2) -> str:
    """The one message of a command that refuses its input."""
    result = run(*words)
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len(re.findall(r"^error: |^Error: |─ Error ─", ANSI.sub("", result.stderr), re.M)) == 1, (
        result.stderr
    )
    return " ".join(ANSI.sub("", result.stderr).split())


def answer(*words: object) -> Any:
    """The one JSON document on stdout."""
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "a checkpoint"))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout and "--help" in result.stdout


def test_help_lists_the_commands_and_the_exit_statuses() -> None:
    result = run("--help")
    assert all(command in result.stdout for command in COMMANDS)
    assert "Exit status: 0" in " ".join(result.stdout.split())
    assert run().exit_code == 2, "no command is bad usage"


def test_version() -> None:
    assert re.fullmatch(r"morvit-deploy \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize(
    "words", [["nonsense"], ["export", "--nonsense"], ["init"], ["predict"]], ids=" ".join
)
def test_bad_usage_is_exit_2(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Usage" in result.stderr and "Traceback" not in result.stderr


# init ------------------------------------------------------------------------------------------------------


def test_init_writes_a_checkpoint(inside: Path) -> None:
    result = run("init", "--preset", "morvit_tiny_digits", "-o", "a folder/new")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (inside / "a folder/new").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert "parameters" in result.stdout


def test_init_is_seeded(inside: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("init", "--preset", "morvit_tiny_digits", "-o", name, "--seed", seed)
    a, b, c = ((inside / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_init_lists_and_refuses(inside: Path) -> None:
    assert "vit_b16" in run("init", "--preset", "list").stdout.split()
    assert "expected one of: morvit_b16" in refused("init", "--preset", "resnet50", "-o", "out")
    (inside / "out").mkdir()
    assert "--force" in refused("init", "--preset", "morvit_tiny_digits", "-o", "out")
    assert [path.name for path in inside.iterdir()] == ["out"]


# export ----------------------------------------------------------------------------------------------------


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
    broken_json: "config.json is not a morvit/1 configuration",
    impossible_value: "num_heads: got 3, expected a divisor of embed_dim 16",
    truncated_weights: "is not a whole safetensors file",
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
        (["--target", "coreml"], "got target 'coreml'; this version exports to: onnx"),
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
    assert "cannot read absent/config.json" in refused("export", "absent")
    assert "no CHECKPOINT given" in refused("export")
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
    assert answer("predict", image_files[0])[0]["bucket"] == "topk"


# verify ----------------------------------------------------------------------------------------------------


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


# predict ---------------------------------------------------------------------------------------------------


def test_predict_json(tiny_bundle: Path, tiny_checkpoint: Path, image_files: list[Path]) -> None:
    from conftest import normalised

    from morvit_deploy.checkpoint import load_checkpoint
    from morvit_deploy.pixels import read_image

    told = answer("predict", tiny_bundle, *image_files, "--logits", "--top", 3)
    assert [row["image"] for row in told] == [str(path) for path in image_files]
    model: MoRViT = load_checkpoint(tiny_checkpoint).double()
    config = model.config
    pixels = np.stack([read_image(path, config.preprocess, config.image_size) for path in image_files])
    expected = model(normalised(config, pixels)).logits
    for row, logits in zip(told, expected, strict=True):
        assert len(row["logits"]) == 10
        assert np.abs(np.array(row["logits"]) - logits.numpy()).max() < 1e-4
        assert [guess["index"] for guess in row["top"]] == logits.argsort(descending=True)[:3].tolist()
        assert row["top"][0]["label"] == config.labels[row["top"][0]["index"]]
        assert row["top"][0]["probability"] == pytest.approx(logits.softmax(0).max().item(), abs=1e-4)


def test_predict_leaves_logits_out_unless_asked(tiny_bundle: Path, image_files: list[Path]) -> None:
    (row,) = answer("predict", tiny_bundle, image_files[0])
    assert set(row) == {"image", "bucket", "top"}


def test_predict_takes_the_newest_bundle(tiny_bundle: Path, image_files: list[Path], inside: Path) -> None:
    import os

    for age, name in ((100, "new"), (200, "old")):
        shutil.copytree(tiny_bundle, inside / "build" / name)
        stamp = (inside / "build" / name / "manifest.json").stat().st_mtime - age
        os.utime(inside / "build" / name / "manifest.json", (stamp, stamp))
    (inside / "build" / "old" / "weights.bin").write_bytes(b"")
    answer("predict", image_files[0])


@pytest.mark.parametrize("what", ["text", "truncated", "small", "16 bit", "missing", "folder", "none"])
def test_predict_refuses_a_bad_image(
    tiny_bundle: Path, image_files: list[Path], tmp_path: Path, what: str
) -> None:
    path = tmp_path / "bad.png"
    words = {"text": "is not an image", "truncated": "cut off", "small": "smaller than", "16 bit": "8 bits a channel",
             "missing": "does not exist", "folder": "is a folder", "none": "no IMAGE given"}[what]  # fmt: skip
    if what == "text":
        path.write_text("no picture")
    elif what == "truncated":
        path.write_bytes(image_files[0].read_bytes()[:900])
    elif what == "small":
        Image.new("RGB", (9, 9)).save(path)
    elif what == "16 bit":
        Image.fromarray(np.zeros((40, 40), np.uint16)).save(path)
    elif what == "folder":
        path.mkdir()
    images = [] if what == "none" else [image_files[0], path]
    assert words in refused("predict", tiny_bundle, *images)


def test_predict_upscales_when_asked(tiny_bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "small.png")
    assert len(answer("predict", tiny_bundle, tmp_path / "small.png", "--upscale")) == 1


def test_predict_draws_depth_maps(tiny_bundle: Path, image_files: list[Path], tmp_path: Path) -> None:
    told = answer("predict", tiny_bundle, *image_files[:2], "--depth-map", tmp_path / "maps")
    for row in told:
        with Image.open(row["depth_map"]) as picture:
            picture.load()
    assert len(list((tmp_path / "maps").iterdir())) == 2


def test_a_depth_map_needs_a_bundle_with_depth(
    exported: Any, image_files: list[Path], tmp_path: Path, tiny_bundle: Path
) -> None:
    from conftest import make_config

    bundle = exported(make_config(routing="none", sharing="middle_cycle"))
    message = refused("predict", bundle, image_files[0], "--depth-map", tmp_path / "maps")
    assert "--with-depth" in message
    assert not (tmp_path / "maps").exists()
