"""The checkpoint format, strict both ways: what is written is read back, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from config_matrix import EVERY, OPTIONS, OWNING, named
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import make_config, random_model
from torch import Tensor

from morvit_deploy.errors import CheckpointError, ConfigError, OutputError
from morvit_deploy.model.checkpoint import fingerprint, init_model, load_checkpoint, save_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    save_checkpoint(random_model(make_config()), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewrite(checkpoint: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the tensors of a checkpoint in place."""
    tensors = load_file(checkpoint / WEIGHTS)
    change(tensors)
    save_file(tensors, checkpoint / WEIGHTS)


def refusal(checkpoint: Path) -> str:
    """The message with which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(checkpoint)
    return str(caught.value)


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b""


@pytest.mark.parametrize("changes", [*EVERY, *OPTIONS, *OWNING], ids=named)
def test_saving_and_loading_gives_identical_bytes(changes: dict[str, Any], tmp_path: Path) -> None:
    model = random_model(make_config(**changes), seed=4)
    save_checkpoint(model, tmp_path / "a")
    loaded = load_checkpoint(tmp_path / "a")
    assert loaded.config == model.config
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(raw(before[name]) == raw(after[name]) for name in before)
    save_checkpoint(loaded, tmp_path / "b")
    for name in ("config.json", WEIGHTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_tensors_have_the_names_of_the_format(checkpoint: Path) -> None:
    block = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    layers = ["patch_embed.proj", "norm", "head"]
    layers += [f"{b}.{part}" for b in ("first", "cycle.0", "last") for part in block]
    layers += [f"routers.{r}.0" for r in range(3)]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(load_file(checkpoint / WEIGHTS)) == expected | {"cls_token", "pos_embed"}


def test_a_header_that_names_a_tensor_twice_is_refused(checkpoint: Path) -> None:
    path = checkpoint / WEIGHTS
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    again = json.dumps({"cls_token": header["cls_token"]})[
        1:-1
    ]  # the same place, so that nothing else is wrong
    longer = content[8 : 8 + length].rstrip()[:-1] + f",{again}}}".encode()
    path.write_bytes(len(longer).to_bytes(8, "little") + longer + content[8 + length :])
    with pytest.raises(CheckpointError, match="got the key 'cls_token' twice in one object"):
        load_checkpoint(checkpoint)


def test_a_loaded_model_is_ready_to_judge(checkpoint: Path) -> None:
    model = load_checkpoint(str(checkpoint))
    assert not model.training
    assert not any(p.requires_grad or p.is_meta for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_widened(checkpoint: Path, dtype: torch.dtype) -> None:
    original = load_file(checkpoint / WEIGHTS)
    rewrite(checkpoint, lambda t: t.update({name: tensor.to(dtype) for name, tensor in t.items()}))
    for name, tensor in load_checkpoint(checkpoint).state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, original[name].to(dtype).float())


def test_every_wrong_tensor_is_listed_in_one_message(checkpoint: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors["cls_token"], tensors["routers.2.0.bias"]
        tensors["cycle.1.norm1.weight"] = torch.ones(16)
        tensors["head.weight"] = tensors["head.weight"].T.contiguous()
        tensors["norm.bias"] = torch.full((16,), float("nan"))
        tensors["last.norm1.bias"][3] = float("inf")
        tensors["first.norm1.weight"] = torch.ones(16, dtype=torch.int32)
        tensors["first.norm2.weight"] = torch.ones(16, dtype=torch.float64)

    rewrite(checkpoint, spoil)
    message = refusal(checkpoint)
    assert "8 problem(s)" in message
    for line in (
        "missing: cls_token [1, 1, 16]",
        "missing: routers.2.0.bias [1]",
        "unexpected: cycle.1.norm1.weight [16]",
        "mis-shaped: head.weight is [16, 10], expected [10, 16]",
        "not finite: norm.bias has 16 NaN or infinite values of 16",
        "not finite: last.norm1.bias has 1 NaN or infinite values of 16",
        "dtype: first.norm1.weight is torch.int32, expected float32",
        "dtype: first.norm2.weight is torch.float64, expected float32",
    ):
        assert line in message


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1], ids=lambda kept: f"{kept} bytes")
def test_a_truncated_file_is_refused(checkpoint: Path, kept: int) -> None:
    path = checkpoint / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    message = refusal(checkpoint)
    assert str(path) in message and "not a complete safetensors file" in message


def make_png(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path, format="png")


def make_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")


def make_pickle(path: Path) -> None:
    torch.save({"head.weight": torch.ones(3)}, path)


def make_noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def make_pointer(path: Path) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 91138272\n")


@pytest.mark.parametrize(
    "make", [make_png, make_zip, make_pickle, make_noise], ids=lambda make: make.__name__
)
def test_a_foreign_file_is_refused(checkpoint: Path, make: Callable[[Path], None]) -> None:
    make(checkpoint / WEIGHTS)
    assert "safetensors" in refusal(checkpoint)


def test_a_git_lfs_pointer_is_refused_and_said_so(checkpoint: Path) -> None:
    make_pointer(checkpoint / WEIGHTS)
    message = refusal(checkpoint)
    assert "safetensors" in message
    assert "LFS" in message


def test_a_missing_weights_file_is_named(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    assert f"{checkpoint / WEIGHTS} is missing" in refusal(checkpoint)


@pytest.mark.parametrize("what", ["config", "folder", "file instead of a folder"])
def test_a_missing_config_is_named(checkpoint: Path, what: str) -> None:
    (checkpoint / "config.json").unlink()
    if what != "config":
        shutil.rmtree(checkpoint)
    if what.startswith("file"):
        checkpoint.write_text("{}")
    with pytest.raises(ConfigError, match=r"cannot read .*config\.json"):
        load_checkpoint(checkpoint)


def test_weights_of_another_architecture_are_refused(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    fields = json.loads(path.read_text()) | {"embed_dim": 32}
    path.write_text(json.dumps(fields))
    assert "mis-shaped: cls_token is [1, 1, 16], expected [1, 1, 32]" in refusal(checkpoint)


def test_an_existing_checkpoint_is_replaced_only_when_asked(checkpoint: Path) -> None:
    other = random_model(make_config(), seed=9)
    before = fingerprint(checkpoint)
    with pytest.raises(OutputError, match="--force"):
        save_checkpoint(other, checkpoint)
    assert fingerprint(checkpoint) == before
    save_checkpoint(other, checkpoint, force=True)
    assert fingerprint(checkpoint) != before
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint"]


def test_the_initialisation_is_seeded() -> None:
    torch.manual_seed(1)
    a = init_model(make_config(), seed=3).state_dict()
    torch.manual_seed(2)
    b, c = (init_model(make_config(), seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])


def test_the_fingerprint_follows_both_files(checkpoint: Path) -> None:
    marks = [fingerprint(checkpoint)]
    rewrite(checkpoint, lambda tensors: tensors["norm.bias"].add_(1))
    marks.append(fingerprint(checkpoint))
    path = checkpoint / "config.json"
    path.write_text(path.read_text().replace('"gate": "block"', '"gate": "delta"'))
    marks.append(fingerprint(checkpoint))
    assert all(a != b for a, b in pairwise(marks))
