"""Conversion as a whole: every tensor accounted for, the same bytes each time, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_checkpoints import SAID, block, said, saved, vit
from torch import Tensor

from morvit_deploy import convert, load_checkpoint
from morvit_deploy.errors import CheckpointError, ConfigError, MorvitError, OutputError
from morvit_deploy.model.checkpoint import fingerprint
from morvit_deploy.sources.conversion import read_model

FILES = ("config.json", "model.safetensors")


def source(folder: Path, tensors: dict[str, Tensor] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return saved({"model": tensors or vit("xaay"), "optimizer": {"lr": 0.1}}, folder / "best.pth")


def test_what_was_converted_is_what_is_loaded(tmp_path: Path) -> None:
    converted = convert(source(tmp_path), tmp_path / "out", **SAID)
    assert repr(converted).startswith(f"Converted({str(converted.source)!r}, family=")
    assert str(tmp_path / "out") in converted._repr_html_()
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.config == converted.model.config
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, converted.model.state_dict()[name]), name
    assert loaded.config.num_layers == 4 and loaded.config.sharing == "middle_cycle"
    assert torch.equal(loaded.state_dict()["last.mlp.fc1.bias"], block(ord("y"))["mlp.fc1.bias"])


def test_every_tensor_of_the_file_is_accounted_for_once(tmp_path: Path) -> None:
    data = read_model(source(tmp_path), said()).as_dict()
    assert sorted(row["source"] for row in data["tensors"]) == sorted(vit("xaay"))
    assert data["dropped"] == {"optimizer": "training state"}
    targets = {row["target"] for row in data["tensors"]}
    assert targets == set(read_model(source(tmp_path), said()).model.state_dict())
    json.dumps(data)


def test_provenance_says_what_was_read_and_said(tmp_path: Path) -> None:
    provenance = read_model(source(tmp_path), said(image_size=24, trained_size=16)).model.config.provenance
    assert provenance is not None
    assert provenance["family"] == "timm_vit" and provenance["entry"] == "model"
    assert provenance["files"].keys() == {"best.pth"}
    settled = {name: one["from"] for name, one in provenance["settled"].items()}
    assert settled == {
        "norm_eps": "command line, --norm-eps",
        "num_heads": "command line, --num-heads",
        "activation": "command line, --activation",
        "preprocess": "command line, --preprocess imagenet",
        "image_size": "command line, --image-size; trained with 16",
        "trained_size": "command line, --trained-size",
        "pooling": "command line, --pooling",
        "head_activation": "default for several classes; or --head-activation sigmoid, none",
    }
    (remark,) = provenance["remarks"]
    assert remark == "position embeddings resampled from 4×4 to 6×6 patches (bicubic, antialiased)"


def test_two_conversions_have_the_same_bytes(tmp_path: Path) -> None:
    preprocess = tmp_path / "my.json"
    preprocess.write_text('{"mean": [0, 0, 0], "std": [1, 1, 1], "resize": 20, "interpolation": "bilinear"}')
    folders = []
    for name in ("one", "another place"):
        out = tmp_path / "out" / name
        convert(source(tmp_path / name), out, **SAID | {"preprocess": preprocess})
        folders.append(out)
    for name in FILES:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert fingerprint(folders[0]) == fingerprint(folders[1])
    text = (folders[0] / "config.json").read_text()
    assert str(tmp_path) not in text and "/home" not in text and "/tmp" not in text
    assert not re.search(r"\d\d:\d\d|20\d\d-\d\d", text), "no time: the same source is the same checkpoint"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    narrow = {name: tensor.to(dtype) for name, tensor in vit("aaa").items()}
    converted = read_model(source(tmp_path, narrow), said())
    assert {t.dtype for t in converted.model.state_dict().values()} == {torch.float32}
    found = converted.model.state_dict()["cycle.0.attn.qkv.weight"]
    assert torch.equal(found, narrow["blocks.0.attn.qkv.weight"].float())
    rounded = [f"{len(converted.model.state_dict())} float64 tensors rounded to float32"]
    assert converted.remarks == (rounded if dtype == torch.float64 else [])
    provenance = converted.model.config.provenance or {}
    assert provenance.get("remarks", []) == converted.remarks


def test_layers_that_share_their_memory_are_written_apart(tmp_path: Path) -> None:
    """As a model whose attention alone is tied is saved; a safetensors file holds no tensor twice."""
    tensors = vit("abc")
    for i in (1, 2):
        tensors[f"blocks.{i}.attn.qkv.weight"] = tensors["blocks.0.attn.qkv.weight"]
    convert(source(tmp_path, tensors), tmp_path / "out", **SAID)
    found = load_checkpoint(tmp_path / "out").state_dict()
    for i in range(3):
        assert torch.equal(found[f"cycle.{i}.attn.qkv.weight"], tensors["blocks.0.attn.qkv.weight"])


def test_a_checkpoint_does_not_replace_itself(tmp_path: Path) -> None:
    """The input may be the only copy, whatever `force` says."""
    convert(source(tmp_path), tmp_path / "out", **SAID)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(OutputError, match=r"out is an input of this command"):
        convert(tmp_path / "out", tmp_path / "out", force=True, image_size=24, preprocess="imagenet")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_another_image_size_resamples_positions_alone(tmp_path: Path) -> None:
    convert(source(tmp_path), tmp_path / "out", **SAID)
    convert(tmp_path / "out", tmp_path / "larger", image_size=24, preprocess="imagenet")
    before, after = (load_checkpoint(tmp_path / name).state_dict() for name in ("out", "larger"))
    assert after["pos_embed"].shape[1] == 37
    assert torch.equal(before["head.weight"], after["head.weight"])


def test_numbers_too_large_for_float32_are_refused(tmp_path: Path) -> None:
    wide = {name: tensor.double() for name, tensor in vit().items()}
    wide["head.bias"][0] = 1e300
    with pytest.raises(CheckpointError, match=r"best.pth[\s\S]*not finite: head.bias"):
        read_model(source(tmp_path, wide), said())


def test_a_converted_checkpoint_at_another_size_keeps_where_it_came_from(tmp_path: Path) -> None:
    convert(source(tmp_path), tmp_path / "one", **SAID)
    converted = convert(tmp_path / "one", tmp_path / "two", image_size=24, preprocess="imagenet")
    before = load_checkpoint(tmp_path / "one").config.provenance
    provenance = converted.model.config.provenance
    assert provenance is not None and provenance["family"] == "native" and provenance["before"] == before
    assert load_checkpoint(tmp_path / "two").config.image_size == 24


def test_a_native_folder_converts_to_itself(tmp_path: Path) -> None:
    convert(source(tmp_path), tmp_path / "one", **SAID)
    convert(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "one" / FILES[1]).read_bytes() == (tmp_path / "two" / FILES[1]).read_bytes()


Failing = Callable[[Path, Path], Any]
FAILURES: dict[str, tuple[Failing, type[MorvitError]]] = {
    "no such file": (lambda s, out: convert(s.with_name("gone"), out, **SAID), CheckpointError),
    "unasked": (lambda s, out: convert(s, out), ConfigError),
    "impossible": (lambda s, out: convert(s, out, **SAID | {"num_heads": 3}), ConfigError),
    "not tied": (lambda s, out: convert(s, out, **SAID, sharing="cycle"), CheckpointError),
    "below a file": (lambda s, out: convert(s, s / "out", **SAID), OutputError),
}


@pytest.mark.parametrize(("run", "error"), FAILURES.values(), ids=FAILURES)
def test_a_refusal_writes_nothing(tmp_path: Path, run: Failing, error: type[MorvitError]) -> None:
    path = source(tmp_path / "in")
    with pytest.raises(error) as caught:
        run(path, tmp_path / "out" / "deep")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "best.pth"]
    if error is CheckpointError:
        assert str(tmp_path / "in") in str(caught.value), "a message names the file"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("moment", ["save_file", "make_readable"])
def test_an_interruption_leaves_the_old_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], moment: str
) -> None:
    path, out = source(tmp_path / "in"), tmp_path / "out"
    convert(path, out, **SAID)
    old = (out / "config.json").read_bytes()

    def interrupted(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(f"morvit_deploy.model.checkpoint.{moment}", interrupted)
    for place in (out, tmp_path / "new"):
        with pytest.raises(error):
            convert(path, place, force=True, **SAID | {"norm_eps": 1e-5})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert (out / "config.json").read_bytes() == old


def test_what_exists_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    told: list[str] = []
    with pytest.raises(OutputError, match="exists; pass --force"):
        convert(tmp_path / "gone.pth", tmp_path / "out", tell=told.append)
    assert told == []


def test_saying_it_twice_is_a_slip(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="num_heads"):
        convert(source(tmp_path), tmp_path / "out", given=said(), num_heads=4)
    with pytest.raises(TypeError, match=r"nun_heads.*did you mean num_heads"):
        convert(source(tmp_path), tmp_path / "out", nun_heads=4)
