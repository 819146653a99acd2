"""Files as people have them: whole, in shards, cut short, pointers, pages, programs; no object is ever unpickled."""

from __future__ import annotations

import argparse
import errno
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_checkpoints import contents, saved, vit
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.tensors import opening
from morvit_deploy.sources.tensors.reading import read_source

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 346284714\n"


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], t) for name, t in wanted.items())


def refused(path: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        read_source(path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".weights"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pytorch_file(tmp_path: Path, suffix: str, legacy: bool) -> None:
    path = saved(OrderedDict(vit()), tmp_path / f"a file{suffix}", legacy)
    found = read_source(path)
    assert same(found.tensors, vit())
    assert found.files.keys() == {path.name} and len(found.files[path.name]) == 64


def test_a_safetensors_file_whatever_its_name(tmp_path: Path) -> None:
    save_file(vit(), tmp_path / "weights.pth")
    assert same(read_source(tmp_path / "weights.pth").tensors, vit())


def test_a_safetensors_header_of_any_length(tmp_path: Path) -> None:
    """Its first byte, the length's lowest, is a pickle's first byte or a space in some files."""
    first, path = set(), tmp_path / "m.bin"  # a name by which PyTorch does not tell it, either
    for length in range(0, 264, 8):
        save_file({"a": torch.ones(1)}, path, metadata={"x": "y" * length})
        first.add(path.read_bytes()[0])
        assert read_source(path).tensors.keys() == {"a"}
    assert {0x80, 0x20} <= first


def test_tied_tensors_that_safetensors_left_out_are_back(tmp_path: Path) -> None:
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    model[1].weight = model[0].weight
    save_model(model, str(tmp_path / "tied.safetensors"))
    assert same(read_source(tmp_path / "tied.safetensors").tensors, dict(model.state_dict()))


def test_metadata_never_replaces_a_tensor(tmp_path: Path) -> None:
    wanted = {"a": torch.ones(1), "b": torch.zeros(1)}
    save_file(wanted, tmp_path / "m.safetensors", metadata={"a": "b"})
    assert same(read_source(tmp_path / "m.safetensors").tensors, wanted)


@pytest.mark.parametrize("name", ["plain", "with space", "brackets [1] *", "ünïcode"])
def test_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    saved(vit(), tmp_path / name / "last.pth")
    (tmp_path / name / "log.txt").write_text("epoch 1")
    assert same(read_source(tmp_path / name).tensors, vit())


def test_links_are_followed_as_a_hub_cache_needs(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    saved(vit(), tmp_path / "blobs" / "4d7a")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.pth").symlink_to(tmp_path / "blobs" / "4d7a")
    (tmp_path / "snapshot" / "config.json").write_text('{"num_classes": 5}')
    found = read_source(tmp_path / "snapshot" / "model.pth")
    assert same(found.tensors, vit()) and found.config == {"num_classes": 5}
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    refused(tmp_path / "broken", "does not exist")


def in_shards(folder: Path, suffix: str) -> dict[str, str]:
    """`vit` in two shards with an index; what the index says."""
    folder.mkdir()
    names = [f"model-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    placed = {key: names[i % 2] for i, key in enumerate(vit())}
    for name in names:
        part = {key: t for key, t in vit().items() if placed[key] == name}
        save_file(part, folder / name) if suffix == "safetensors" else saved(part, folder / name)
    stem = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    write_index(folder, placed, stem)
    return placed


def write_index(folder: Path, placed: Any, stem: str = "model.safetensors") -> Path:
    path = folder / f"{stem}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": placed}))
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_by_their_folder_or_their_index(tmp_path: Path, suffix: str) -> None:
    in_shards(tmp_path / "m", suffix)
    index = next((tmp_path / "m").glob("*.index.json"))
    for path in (tmp_path / "m", index):
        found = read_source(path)
        assert same(found.tensors, vit()) and len(found.files) == 2


def test_a_prefix_is_taken_off_all_shards_or_none(tmp_path: Path) -> None:
    """One shard's keys all begin alike, the other's do not."""
    placed = {"model.a": "1.safetensors", "head": "2.safetensors"}
    for key, name in placed.items():
        save_file({key: torch.ones(1)}, tmp_path / name)
    write_index(tmp_path, placed)
    found = read_source(tmp_path)
    assert found.tensors.keys() == {"model.a", "head"} and found.prefix == ""


Damage = Callable[[Path, dict[str, str]], object]
SHARDS: dict[str, tuple[Damage, str]] = {
    "missing": (lambda m, p: first(m).unlink(), "lists 2 shards, of which 1 are missing: model-00001"),
    "cut short": (lambda m, p: cut(first(m)), "neither a complete safetensors file"),
    "pointer": (lambda m, p: first(m).write_bytes(POINTER), "Git LFS pointer to a file of 346,284,714 bytes"),
    "empty": (lambda m, p: first(m).write_bytes(b""), "is empty"),
    "of another model": (lambda m, p: save_file({"a": torch.ones(1)}, first(m)), "lacks 22 tensors that the index"),
    "repeated": (lambda m, p: save_file(vit(), first(m)), "contains tensors of another shard"),
    "outside": (lambda m, p: write_index(m, {"a": "../x.safetensors"}), "expected the name of a file"),
    "absolute": (lambda m, p: write_index(m, {"a": "/etc/passwd"}), "expected the name of a file"),
    "parent": (lambda m, p: write_index(m, {"a": ".."}), "missing: \\.\\."),
    "no names": (lambda m, p: write_index(m, {"a": 1}), "no weight_map"),
    "no map": (lambda m, p: write_index(m, {}), "no weight_map"),
    "index pointer": (lambda m, p: index_of(m).write_bytes(POINTER), "Git LFS pointer"),
    "index list": (lambda m, p: index_of(m).write_text("[]"), ": got a list, expected a JSON object"),
    "index cut short": (lambda m, p: cut(index_of(m)), "is not a JSON file"),
    "whole file beside": (lambda m, p: save_file(vit(), m / "model.safetensors"), "an index of other files"),
}  # fmt: skip  # a line each


def first(folder: Path) -> Path:
    return folder / "model-00001-of-00002.safetensors"


def index_of(folder: Path) -> Path:
    return folder / "model.safetensors.index.json"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("damage", "match"), SHARDS.values(), ids=SHARDS)
def test_damaged_shards(tmp_path: Path, damage: Damage, match: str) -> None:
    placed = in_shards(tmp_path / "m", "safetensors")
    damage(tmp_path / "m", placed)
    refused(tmp_path / "m", match)


def test_folders_that_leave_a_choice(tmp_path: Path) -> None:
    saved(vit(), tmp_path / "best.pth")
    saved(vit(), tmp_path / "last.pth")
    refused(tmp_path, "contains 2 files of weights: best.pth, last.pth; give one of the files")
    save_file(vit(), tmp_path / "model.safetensors")  # the name that every library looks for first
    assert read_source(tmp_path).files.keys() == {"model.safetensors"}
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "contains no weights; expected a file that ends in .safetensors")


def test_shards_without_their_index(tmp_path: Path) -> None:
    in_shards(tmp_path / "m", "safetensors")
    index_of(tmp_path / "m").unlink()
    refused(tmp_path / "m", "contains shards .* without their index, model.safetensors.index.json or")
    first(tmp_path / "m").unlink()
    refused(tmp_path / "m", "without their index")


def test_a_bundle_is_no_checkpoint(tiny_bundle: Path) -> None:
    refused(tiny_bundle, "is a bundle; give the checkpoint that it was exported from")


BYTES = {
    "empty": (b"", "is empty; copy it again"),
    "pointer": (POINTER, "Git LFS pointer to a file of 346,284,714 bytes.*git lfs pull"),
    "page": (b"\n<!DOCTYPE html><html><body>Not found", "is a web page"),
    "page without a type": (b"<HTML><head>", "is a web page"),
    "JSON": (b'{"format": "morvit/1"}', "is a JSON file, not weights; give the folder"),
    "text": (b"hello", "neither a complete safetensors file nor a PyTorch file"),
    "zip of something else": (b"PK\x03\x04", "truncated"),
    "old pickle": (
        b"\x80\x02}q\x00.",
        "not a complete PyTorch file|contains no state dict|more than|not of a dictionary",
    ),
    "long header": ((10**15).to_bytes(8, "little") + b"{}", "neither"),
}


@pytest.mark.parametrize(("content", "match"), BYTES.values(), ids=BYTES)
def test_what_is_no_file_of_weights(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    refused(path, match)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9, 0.999])
def test_a_file_cut_short_anywhere(tmp_path: Path, legacy: bool, part: float) -> None:
    path = saved(vit(), tmp_path / "model.pth", legacy)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(CheckpointError, match=r"truncated|not a complete PyTorch file") as caught:
        read_source(path)
    assert "weights_only" not in str(caught.value), "torch's advice to drop the guard"


class Evil:
    """Runs a shell command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.mark}'",)


def protocol_0(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


def protocol_4(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=4))


WRITERS = {
    "zip": saved,
    "legacy": lambda content, path: saved(content, path, legacy=True),
    "protocol 0": protocol_0,
    "protocol 4": protocol_4,
}


@pytest.mark.parametrize("place", ["top", "in the wrapper", "beside it"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_malicious_pickle_is_refused_and_not_executed(
    tmp_path: Path, write: Callable[[object, Path], object], place: str
) -> None:
    mark, path = tmp_path / "executed", tmp_path / "model.pth"
    evil = Evil(mark)
    content: Any = {
        "top": evil,
        "in the wrapper": {"state_dict": {"a": torch.ones(1), "b": evil}},
        "beside it": {"state_dict": {"a": torch.ones(1)}, "epoch": evil},
    }[place]
    write(content, path)
    with pytest.raises(CheckpointError) as caught:
        read_source(path)
    assert not mark.exists()
    assert "weights_only" not in str(caught.value)
    if write in (WRITERS["zip"], WRITERS["legacy"]):
        assert "posix.system" in str(caught.value) and "would run code" in str(caught.value)
        pickle.loads(pickle.dumps(evil))
        assert mark.exists(), "the file would have done it"


def test_the_one_object_that_deits_script_saves(tmp_path: Path) -> None:
    path = saved({"model": vit(), "args": argparse.Namespace(lr=1e-3, seed=0)}, tmp_path / "best.pth")
    assert same(read_source(path).tensors, vit())
    path = saved({"model": vit(), "args": argparse.Namespace(out=Path("runs"))}, tmp_path / "path.pth")
    refused(path, r"Python objects \(pathlib")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_whole_modules_and_programs(tmp_path: Path) -> None:
    refused(
        saved(nn.Linear(2, 2), tmp_path / "module.pth"), r"torch.nn.modules.linear.Linear.*state_dict\(\)"
    )
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "program.pt"))
    refused(tmp_path / "program.pt", "TorchScript program")


def test_a_numpy_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "B_16.npz", kernel=np.ones(3))
    refused(tmp_path / "B_16.npz", "is a NumPy archive.*timm")


BESIDE = {
    "equal keys": ('{"a": 1, "a": 2}', "config.json is not a JSON file[\\s\\S]*got the key 'a' twice"),
    "UTF-16": ("\ufeff{}", "got a byte-order mark, expected UTF-8"),
    "list": ("[1, 2]", "config.json: got a list, expected a JSON object"),
    "broken": ("{,}", "config.json is not a JSON file"),
    "deep": ("[" * 100_000, "config.json is not a JSON file"),
    "pointer": (POINTER.decode(), "config.json is a Git LFS pointer"),
}


@pytest.mark.parametrize(("text", "match"), BESIDE.values(), ids=BESIDE)
def test_a_configuration_that_cannot_be_read(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "config.json").write_text(text)
    refused(saved(vit(), tmp_path / "model.pth"), match)


@pytest.mark.parametrize("name", ["Best.PTH", "model_best.pth.tar", "LAST.Ckpt", "W.SAFETENSORS"])
def test_a_folder_with_a_file_of_another_usual_name(tmp_path: Path, name: str) -> None:
    saved(vit(), tmp_path / name)
    (tmp_path / "code.tar").write_bytes(b"x")
    assert same(read_source(tmp_path).tensors, vit())


# --- damage that a checksum reports, and tensors without values


def test_a_flipped_bit_is_reported_by_the_archives_checksum(tmp_path: Path) -> None:
    path = saved(vit(), tmp_path / "model.pth")
    content = bytearray(path.read_bytes())
    at = content.index(vit()["blocks.0.mlp.fc1.weight"].numpy().tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    refused(path, r"is damaged: model/data/\d+ differs from its checksum in the file; copy it again")


def test_a_name_in_the_archive_that_is_no_text(tmp_path: Path) -> None:
    path = saved(vit(), tmp_path / "model.pth")
    path.write_bytes(path.read_bytes().replace(b"/data.pkl", b"/dat\xe1.pkl"))
    refused(path, r"truncated or damaged zip file")


def test_a_file_that_was_saved_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(vit(), tmp_path / "model.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_source(path).tensors, vit())


def test_an_entry_of_the_archive_that_is_there_twice(tmp_path: Path) -> None:
    path = saved(vit(), tmp_path / "model.pth")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("model/data/0", b"\0" * 32)
    refused(path, "contains model/data/0 twice, expected each entry once")


def test_two_tensors_of_one_name_in_a_safetensors_file(tmp_path: Path) -> None:
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    header = f"{{{entry}, {entry}}}".encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    refused(path, "sound header:\n.*got the key 'a' twice in one object, expected each key once")


VALUELESS: dict[str, tuple[Callable[[], Tensor], str]] = {
    "meta": (lambda: torch.empty(3, 4, device="meta"), "odd: on device meta: it has a shape and no values"),
    "terabytes": (
        lambda: torch.ones(1).expand(10**6, 10**6),
        r"odd: expanded to \[1000000, 1000000\], which would",
    ),
    "sparse": (lambda: torch.eye(3).to_sparse(), "odd: sparse_coo, expected a dense tensor"),
    "compressed rows": (lambda: torch.eye(3).to_sparse_csr(), "odd: sparse_csr, expected a dense tensor"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "odd: nested"),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "odd: qint8, expected float values; dequantise it first",
    ),
}


@pytest.mark.filterwarnings("ignore")  # of torch, about what it is giving up
@pytest.mark.parametrize(("make", "match"), VALUELESS.values(), ids=VALUELESS)
def test_tensors_without_plain_values(tmp_path: Path, make: Callable[[], Tensor], match: str) -> None:
    path = saved({"state_dict": vit() | {"odd": make()}}, tmp_path / "model.pth")
    refused(path, f"has 1 tensors \\(of 45\\) that cannot be read as plain arrays:\n  - {match}")


def test_a_small_expanded_tensor_is_an_ordinary_one(tmp_path: Path) -> None:
    state = vit() | {"cls_token": torch.ones(1).expand(1, 1, 8)}
    assert same(read_source(saved(state, tmp_path / "model.pth")).tensors, state)


# --- NumPy's objects


NUMBERS: dict[str, Any] = {
    "scalar": np.float64(0.731),
    "int": np.int64(3),
    "bool": np.bool_(True),
    "half": np.float16(0.5),
    "array": np.arange(6, dtype=np.uint32).reshape(2, 3),
    "columns": np.asfortranarray(np.ones((2, 3))),
    "generator": np.random.RandomState(0).get_state(),
}


@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_numpys_numbers_beside_the_weights(tmp_path: Path, value: Any, legacy: bool) -> None:
    content = {"state_dict": vit(), "epoch": 3, "best_acc1": value}
    found = read_source(saved(content, tmp_path / "model.pth", legacy))
    assert same(found.tensors, vit()) and "best_acc1" in found.dropped


def test_numpys_numbers_are_read_as_they_are(tmp_path: Path) -> None:
    content = {name: value for name, value in NUMBERS.items() if name != "generator"}
    content |= {"big-endian": np.arange(3, dtype=">i4")}
    found = opening._content(saved(content, tmp_path / "model.pth"))
    for name, value in content.items():
        read = found[name].values if isinstance(value, np.ndarray) else found[name]
        assert np.array_equal(read, value), name


def test_an_array_of_weights_is_no_training_state(tmp_path: Path) -> None:
    path = saved({"state_dict": vit(), "head": np.ones((3, 3))}, tmp_path / "model.pth")
    refused(path, r"contains other weights besides state_dict.*head \(1 weights\)")
    path = saved(vit() | {"blocks.0.attn.qkv.bias": np.ones(24)}, tmp_path / "mixed.pth")
    refused(path, r"other weights besides its tensors.*blocks.0.attn.qkv.bias \(1 weights\)")


@pytest.mark.parametrize(
    "value", [np.array([{}]), np.str_("a"), np.array(["a"]), np.datetime64("2026-01-01")]
)
def test_numpys_other_objects_are_not_read(tmp_path: Path, value: Any) -> None:
    refused(
        saved({"state_dict": vit(), "x": value}, tmp_path / "model.pth"), "that is not read|would run code"
    )


class Forged:
    """A pickle that makes NumPy read what is not there."""

    def __init__(self, kind: Any, content: bytes) -> None:
        self.arguments = (kind, content)

    def __reduce__(self) -> tuple[Any, ...]:
        return np.float64(1).__reduce__()[0], self.arguments


@pytest.mark.parametrize("content", [b"1234567", b"12345678" * 2])
def test_a_forged_scalar(tmp_path: Path, content: bytes) -> None:
    path = saved({"state_dict": vit(), "x": Forged(np.dtype("f8"), content)}, tmp_path / "model.pth")
    refused(path, "NumPy value|not a complete PyTorch file|not read")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object, **__: object) -> None:  # file modes do not hold for root
        raise PermissionError(errno.EACCES, "Permission denied")

    path = saved(vit(), tmp_path / "model.pth")
    monkeypatch.setattr(Path, "open", forbid)
    refused(path, "cannot read .*Permission denied")


def test_what_is_neither_file_nor_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is neither a file nor a folder")
    refused(tmp_path / "gone", "does not exist")


def test_contents_name_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text('{"size": 1}')
    state = {f"module._orig_mod.{name}": t for name, t in vit().items()}
    found = read_source(saved({"state_dict": state, "epoch": 3}, tmp_path / "m.pth"))
    assert same(found.tensors, contents(vit()).tensors)
    assert (found.wrapper, found.prefix) == ("state_dict", "module._orig_mod.")
    assert found.processor == {"size": 1} and found.config == {}
    assert found.dropped == {"epoch": "training state"}
    assert list(found.files) == ["config.json", "preprocessor_config.json", "m.pth"]
