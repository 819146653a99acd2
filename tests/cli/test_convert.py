"""`convert`, and checkpoints of other code in every command that takes one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import source_models
import torch
from calibration_setup import save_pictures
from commands import ANSI, answer, refused, run
from foreign_checkpoints import SAID, SAY, saved, vit
from third_party import third_party

from morvit_deploy import load_checkpoint
from morvit_deploy.calibration.routing import sequence
from morvit_deploy.sources.conversion import read_model
from morvit_deploy.sources.settings.given import Given

MAIN = "from morvit_deploy.cli import main; main()"
WAIT_S = 120.0  # a busy machine


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A plain ViT by timm's names, whose layers are one block, in a folder with a space."""
    (tmp_path / "my runs").mkdir()
    return saved({"state_dict": vit("aaa"), "epoch": 3}, tmp_path / "my runs" / "best [1].pth")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def left_in(scratch: Path) -> list[Path]:
    """Temporary checkpoints that nobody removed; PyTorch keeps a folder of its own there."""
    return list(scratch.glob("morvit-*"))


# --- convert


def test_tables_of_a_conversion(source: Path, tmp_path: Path) -> None:
    ended = run("convert", source, "-o", tmp_path / "out", *SAY)
    assert ended.exit_code == 0, ended.output
    load_checkpoint(tmp_path / "out")
    text = " ".join(ended.stdout.split())
    assert "family timm_vit" in text and "detected from patch_embed.proj.weight" in text
    assert "entry state_dict" in text
    assert "3 layers: 1 unique block(s) applied 3 times; every tensor of every copy is bit-identical" in text
    assert "norm_eps 1e-06 command line, --norm-eps" in text
    assert "copied; bit-identical to layer 0 24" in text and "copied 20" in text
    assert "not converted: training state 1" in text
    assert "written " in text
    assert all(line.endswith(" ...") for line in ended.stderr.splitlines()), "stages, and no remark"


def test_explain_lists_every_tensor_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    ended = run("convert", source, "--explain", *SAY)
    assert ended.exit_code == 0, ended.output
    lines = {line.split()[0]: line for line in ended.stdout.splitlines() if line.split()}
    for name, tensor in vit("aaa").items():
        assert "×".join(map(str, tensor.shape)) in lines[name]
    assert "cycle.0.norm1.weight" in lines["blocks.2.norm1.weight"]
    assert "bit-identical to layer 0" in lines["blocks.2.norm1.weight"]
    assert "training state" in lines["epoch"]
    assert "no; use -o DIR" in ended.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_json_has_the_same_facts(source: Path, tmp_path: Path) -> None:
    data = answer("convert", source, "-o", tmp_path / "out", *SAY)
    assert data["checkpoint"] == str(tmp_path / "out") and data["family"] == "timm_vit"
    assert data["wrapper"] == "state_dict" and data["settled"]["num_heads"] == {
        "value": 2, "from": "command line, --num-heads",
    }  # fmt: skip
    assert len(data["tensors"]) == len(vit("aaa"))
    assert data["config"] == json.loads((tmp_path / "out" / "config.json").read_text()) | {
        "register_tokens": 0,
        "head_activation": "softmax",
    }
    assert answer("convert", source, "--explain", *SAY)["checkpoint"] is None


def test_without_a_place_to_write(source: Path) -> None:
    assert "no output folder given: give -o DIR" in refused("convert", source, *SAY)


def test_what_exists_is_replaced_only_by_force(source: Path, tmp_path: Path) -> None:
    assert run("convert", source, "-o", tmp_path / "out", *SAY).exit_code == 0
    assert "pass --force" in refused("convert", source, "-o", tmp_path / "out", *SAY)
    again = (*SAY, "--image-size", 24, "--trained-size", 16, "--force")
    assert run("convert", source, "-o", tmp_path / "out", *again).exit_code == 0
    assert load_checkpoint(tmp_path / "out").config.image_size == 24
    message = refused("convert", source, "-o", source.parent, *SAY, "--force")
    assert "an input of this command" in message and source.is_file()


MESSAGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "asks": ((), "--preprocess published: inception for timm's own ViTs, imagenet for DeiT"),
    "asks with a line": ((), "your model's values for N, NAME, HEADS: --image-size N --preprocess NAME"),
    "in vain": ((*SAY, "--gate", "hard"), "--gate: has no effect on this checkpoint"),
    "no such activation": (("--activation", "silu"), "--activation: got 'silu', expected one of gelu"),
    "no such family": ((*SAY, "--family", "vit"), "--family: got 'vit', expected one of edge_recvit"),
    "another family": ((*SAY, "--family", "edge_recvit"), "do not belong to one: - unexpected: "),
    "no such preset": ((*SAY[2:], "--preprocess", "imagnet"), "--preprocess: got imagnet, expected imagenet"),
    "too large": ((*SAY, "--image-size", 10**10), "got 10000000000, expected a number above 0 and at most 16384"),
    "long number": ((*SAY, "--capacity", "9" * 5000), "expected positive numbers with commas"),
    "no such entry": ((*SAY, "--entry", "ema"), "expected one of its state dicts: state_dict (44 weights)"),
    "no such prefix": ((*SAY, "--prefix", "student."), "with which no tensor begins; expected one of patch_embed."),
    "no multiple": ((*SAY, "--image-size", 30, "--trained-size", 16), "got 30, expected a multiple of"),
    "heads": ((*SAY, "--sharing", "cycle", "--num-heads", 3), "num_heads: got 3, expected a divisor of embed_dim 8"),
    "no capacities": ((*SAY, "--capacity", "3,,2"), "--capacity: got '3,,2', expected positive numbers with commas"),
    "no number": (("--norm-eps", "small"), "--norm-eps"),
    "eps zero": (("--norm-eps", "0"), "--norm-eps: got 0.0, expected a number above 0"),
    "ties": ((*SAY, "--sharing", "middle_cycle", "--cycle-depth", 2), "in cycles, expected a multiple of"),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("words", "told"), MESSAGES.values(), ids=MESSAGES)
def test_messages(source: Path, tmp_path: Path, words: tuple[Any, ...], told: str) -> None:
    assert told in refused("convert", source, "-o", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_averaged_weights_or_trained_ones(tmp_path: Path) -> None:
    path = saved({"model": vit("abc"), "model_ema": vit("aaa")}, tmp_path / "m.pth")
    assert answer("convert", path, "--explain", *SAY)["config"]["sharing"] == "cycle"
    data = answer("convert", path, "--explain", *SAY, "--no-ema")
    assert data["config"]["sharing"] == "none" and data["wrapper"] == "model"


def test_one_entry_and_one_module_of_a_file(tmp_path: Path) -> None:
    student = {f"module.student.{name}": tensor for name, tensor in vit("aaa").items()}
    teacher = {f"module.teacher.{name}": tensor for name, tensor in vit("abc").items()}
    path = saved({"model": {}, "ema": {"weights": student | teacher}}, tmp_path / "run.PTH.tar")
    which = ("--entry", "ema.weights", "--prefix", "teacher.")
    assert "Choose one with --entry: ema.weights" in refused("convert", path, "--explain", *SAY)
    told = refused("convert", path, "--explain", *SAY, *which[:2])
    assert "student.*: a ViT with timm's names" in told and "choose one with --prefix student." in told
    data = answer("convert", path, "-o", tmp_path / "out", *SAY, *which)
    assert data["config"]["sharing"] == "none" and data["wrapper"] == "ema.weights"
    assert set(data["dropped"].values()) == {"not chosen by --entry", "outside --prefix"}
    assert data["config"]["provenance"]["entry"] == "ema.weights"
    assert data["config"]["provenance"]["prefix"] == "teacher."
    assert answer("inspect", path, *SAY, *which)["config"]["cycle_depth"] == 3
    converted = read_model(path, Given(**SAID, entry="ema.weights", prefix="student"))
    assert converted.model.config.sharing == "cycle"


@pytest.mark.parametrize("command", ["convert", "inspect", "export", "calibrate"])
def test_a_path_to_nothing_is_said_before_anything_else(tmp_path: Path, command: str) -> None:
    images = ("--images", "photos") if command == "calibrate" else ()
    told = refused(command, tmp_path / "gone.pth", "--activation", "silu", *images)
    assert (
        told
        == f"error: {tmp_path}/gone.pth does not exist; give a file of weights or the folder that holds it"
    )


def test_a_folder_whose_processor_squashes(tmp_path: Path) -> None:
    """Nothing is asked: the files say all, and the converted checkpoint says how pictures are prepared."""
    transformers = third_party("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=8,
        num_labels=3,
    )  # fmt: skip  # two lines read better than seven
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "google")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "google")
    data = answer("convert", tmp_path / "google", "-o", tmp_path / "out")
    assert data["config"]["preprocess"]["resize"] == [16, 16]
    assert data["settled"]["preprocess"]["from"] == "preprocessor_config.json"
    shown = " ".join(run("inspect", tmp_path / "out").stdout.split())
    assert "resized to 16×16 whatever the shape (bilinear), center 16×16" in shown


def test_a_debug_run_shows_the_traceback(source: Path) -> None:
    ended = run("--debug", "convert", source, "--explain")
    assert ended.exit_code == 2


# --- every command takes a SOURCE


def test_help_of_convert_shows_the_options() -> None:
    ended = run("convert", "--help")
    text = ANSI.sub("", ended.stdout)
    assert ended.exit_code == 0 and "For a checkpoint of other code" in text
    for option in (
        "preprocess",
        "norm-eps",
        "num-heads",
        "gate",
        "alpha",
        "dora-alpha",
        "image-size",
        "trained-size",
        "patch-stride",
        "pooling",
        "head-activation",
        "sharing",
        "no-ema",
    ):
        assert f"--{option} " in text


@pytest.mark.parametrize("command", ["inspect", "calibrate", "export", "verify", "bench"])
def test_help_of_others_refers_to_convert(command: str) -> None:
    """They accept the same options: the next tests give them."""
    text = run(command, "--help").stdout
    assert "For a checkpoint of other code" in text and "see `morvit-deploy convert --help`" in text
    assert "--norm-eps" not in text


@pytest.mark.parametrize("command", ["predict", "demo", "init", "doctor"])
def test_commands_without_a_checkpoint_have_none_of_them(command: str) -> None:
    assert "--norm-eps" not in run(command, "--help").stdout


def test_inspect_and_export_and_verify(source: Path, scratch: Path, inside: Path) -> None:
    facts = answer("inspect", source, *SAY)
    assert str(scratch) not in json.dumps(facts) + run("inspect", source, *SAY).output
    assert facts["config"]["num_recursions"] == 3
    ended = run("export", source, *SAY)
    assert ended.exit_code == 0, ended.output
    assert (
        "is a ViT with timm's names (timm, DeiT), detected from patch_embed.proj.weight; 3 layers"
        in ended.stderr
    )
    bundle = inside / "build" / "best [1]-onnx"
    assert (bundle / "manifest.json").is_file()
    found = answer("verify", bundle, "--checkpoint", source, *SAY)
    assert found["passed"]
    assert "sha256 differs" not in run("verify", bundle, "--checkpoint", source, *SAY).stderr
    message = refused("verify", bundle, "--checkpoint", source, *SAY[:-1], "gelu_tanh")
    assert f"{source} (converted)" in message and str(scratch) not in message
    same = Path("same.json")
    same.write_text(json.dumps(facts["config"]["preprocess"]))
    ended = run("verify", bundle, "--checkpoint", source, "--preprocess", same, *SAY[2:])
    assert ended.exit_code == 0 and "sha256 differs" in ended.stderr, "said in other words"
    assert left_in(scratch) == []


def test_a_plan_of_a_source_is_its_plan(
    tmp_path: Path, scratch: Path, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`calibrate SOURCE` and `export SOURCE` convert by themselves, to the same bytes."""
    monkeypatch.setattr(sequence, "SCALES", (0.5, 1.0))
    model = source_models.randomise(source_models.EdgeRecViT(), seed=4, router_scale=2.0)
    source = saved(model.state_dict(), tmp_path / "edge.pth")
    say = (
        *("--preprocess", "cifar10", "--norm-eps", "1e-12", "--num-heads", 2, "--activation", "gelu"),
        *("--image-size", 32),
    )
    images = save_pictures(tmp_path / "images")
    ended = run("calibrate", source, "--images", images, "--buckets", 2, *say)
    assert ended.exit_code == 0, ended.output
    ended = run("export", source, "--plan", "plan.json", "-o", "bundle", *say)
    assert ended.exit_code == 0, ended.output
    assert "another checkpoint" in refused(
        "export",
        source,
        "--plan",
        "plan.json",
        "-o",
        "b",
        *("relu" if word == "gelu" else word for word in say),
    )
    quick = ("--runs", 10, "--blocks", 1, "--warmup", 0, "--batches", 1)
    ended = run("bench", "bundle", "--verdict", "--checkpoint", source, *quick, *say)
    assert ended.exit_code == 0, ended.output
    assert "Verdict on the plan of" in ended.stdout
    assert left_in(scratch) == []


@pytest.mark.parametrize("command", ["inspect", "export"])
def test_a_source_that_cannot_be_loaded_leaves_nothing(
    source: Path, scratch: Path, inside: Path, command: str
) -> None:
    assert "These settings affect its logits" in refused(command, source)
    assert left_in(scratch) == list(inside.iterdir()) == []


def test_options_that_a_native_checkpoint_has_no_use_for(tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    message = refused(
        "inspect", tiny_checkpoint, "--norm-eps", "1e-6", "--alpha", "0", "--no-ema", "--family", "native"
    )
    assert "its config.json says everything, so leave out --norm-eps, --alpha, --family, --no-ema" in message
    message = refused("bench", tiny_bundle, "--alpha", "0")
    assert "--alpha say how to read --checkpoint, which is for --verdict" in message


def test_a_foreign_folder_as_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(vit("aaa"), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"num_classes": 5}')
    monkeypatch.chdir(tmp_path)
    assert answer("inspect", *SAY)["config"]["num_classes"] == 5


# --- interrupted


def interrupts() -> None:
    """A shell's background job, which a test run may be, ignores them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_interrupted_export_of_a_source_leaves_no_temporary_folder(
    source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "scratch").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "export", source, "-o", tmp_path / "b", *SAY],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=interrupts,
        env=os.environ | {"TMPDIR": str(tmp_path / "scratch")},
    )  # fmt: skip
    end = time.monotonic() + WAIT_S
    while process.poll() is None and time.monotonic() < end and not list(tmp_path.glob(".b.partial-*")):
        time.sleep(0.005)
    converted = list((tmp_path / "scratch").glob("morvit-*/checkpoint/config.json"))
    process.send_signal(number)
    _, told = process.communicate(timeout=WAIT_S)
    assert converted, "the signal came while the converted checkpoint was there"
    assert process.returncode == 130 and "interrupted" in told and "Traceback" not in told
    assert left_in(tmp_path / "scratch") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my runs", "scratch"]


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    tensors = vit()
    tensors["norm.bias"][0] = torch.nan
    message = refused("convert", saved(tensors, tmp_path / "m.pth"), "--explain", *SAY)
    assert "norm.bias: 1 of 8 values are NaN or infinite" in message
