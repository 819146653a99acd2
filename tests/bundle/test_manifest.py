"""Opening a bundle: its format, and each file's name, size and content, are checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morvit_deploy import open_bundle
from morvit_deploy.agent.core.recipe import sha256_of
from morvit_deploy.bundle.manifest import Manifest, describe_files, open_manifest
from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.errors import BundleError, TargetError


def refusal(bundle: Path) -> str:
    """The message with which a bundle is refused, by the manifest's reader and by `open_bundle` alike."""
    with pytest.raises(BundleError) as caught:
        open_manifest(bundle)
    with pytest.raises(BundleError):
        open_bundle(bundle)
    return str(caught.value)


def edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest in place."""
    path = bundle / "manifest.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    path.write_text(json.dumps(fields), encoding="utf-8")


def test_a_good_bundle_opens(tiny_bundle: Path) -> None:
    manifest = open_manifest(str(tiny_bundle))
    assert [file.path for file in manifest.files] == ["model.onnx", "weights.bin"]
    with open_bundle(tiny_bundle) as session:
        assert session.manifest == manifest


def test_a_copy_elsewhere_opens(copied_bundle: Path, tmp_path: Path) -> None:
    moved = tmp_path / "a place with spaces é"
    copied_bundle.rename(moved)
    with open_bundle(moved):
        pass


def test_the_manifest_round_trips(tiny_bundle: Path) -> None:
    text = (tiny_bundle / "manifest.json").read_text(encoding="utf-8")
    manifest = Manifest.model_validate_json(text)
    assert manifest.to_json() == text
    assert Manifest.model_validate_json(manifest.to_json()) == manifest


def test_hashes_are_sha256(tmp_path: Path) -> None:
    content = b"x" * 3_000_001  # more than one chunk
    (tmp_path / "f").write_bytes(content)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(content).hexdigest()
    (described,) = describe_files(tmp_path, ["f"])
    assert (described.path, described.bytes) == ("f", len(content))


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin"])
@pytest.mark.parametrize("where", [0, 1000, -1])
def test_a_changed_byte_is_found(copied_bundle: Path, name: str, where: int) -> None:
    content = bytearray((copied_bundle / name).read_bytes())
    content[where] ^= 1
    (copied_bundle / name).write_bytes(content)
    assert f"{name}: content differs" in refusal(copied_bundle)


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin"])
@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_truncated_file_is_found(copied_bundle: Path, name: str, kept: int) -> None:
    path = copied_bundle / name
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:kept])
    message = refusal(copied_bundle)
    assert f"{name}: {path.stat().st_size:,} bytes, expected {whole:,}" in message


def test_every_damaged_file_is_listed(copied_bundle: Path) -> None:
    (copied_bundle / "model.onnx").unlink()
    (copied_bundle / "weights.bin").write_bytes(b"")
    message = refusal(copied_bundle)
    assert "model.onnx: missing" in message and "weights.bin: 0 bytes" in message


@pytest.mark.parametrize("folder", ["model.onnx", "weights.bin"])
def test_a_folder_in_place_of_a_file_is_found(copied_bundle: Path, folder: str) -> None:
    (copied_bundle / folder).unlink()
    (copied_bundle / folder).mkdir()
    assert f"{folder}: missing" in refusal(copied_bundle)


OUTSIDE = ["../weights.bin", "a/../../weights.bin", "/etc/passwd", "..", "", ".", "..\\weights.bin",
           "C:weights.bin", "C:\\weights.bin"]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_name_that_leaves_the_folder_is_refused(copied_bundle: Path, path: str) -> None:
    shutil.copy(copied_bundle / "weights.bin", copied_bundle.parent / "weights.bin")
    edit(copied_bundle, lambda fields: fields["files"][1].update(path=path))
    message = refusal(copied_bundle)
    assert repr(path) in message or "missing" in message


@pytest.mark.parametrize("target", ["elsewhere", "../weights-elsewhere"], ids=["absolute", "relative"])
def test_a_link_is_followed_where_the_content_is_the_manifests(copied_bundle: Path, target: str) -> None:
    """The Hugging Face hub keeps its files so."""
    image = synthetic_images(1, open_manifest(copied_bundle).config.image_size)
    with open_bundle(copied_bundle) as session:
        expected = session.logits(image)
    outside = copied_bundle.parent / "weights-elsewhere"
    (copied_bundle / "weights.bin").rename(outside)
    (copied_bundle / "weights.bin").symlink_to(outside if target == "elsewhere" else target)
    with open_bundle(copied_bundle) as session:
        np.testing.assert_array_equal(session.logits(image), expected)
    content = bytearray(outside.read_bytes())
    content[-1] ^= 1
    outside.write_bytes(content)
    assert "weights.bin: content differs" in refusal(copied_bundle)
    outside.unlink()
    assert "weights.bin: missing" in refusal(copied_bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_link_to_a_pipe_is_no_file(copied_bundle: Path) -> None:
    os.mkfifo(copied_bundle.parent / "pipe")
    (copied_bundle / "weights.bin").unlink()
    (copied_bundle / "weights.bin").symlink_to(copied_bundle.parent / "pipe")
    assert "weights.bin: missing" in refusal(copied_bundle)


def test_a_manifest_that_leaves_out_a_file_is_refused(copied_bundle: Path) -> None:
    """Otherwise its weights would be loaded unchecked."""
    edit(copied_bundle, lambda fields: fields["files"].pop())
    with pytest.raises(BundleError, match=r"does not list .*weights\.bin"):
        open_bundle(copied_bundle)


BROKEN: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda f: f.update(format="morvit-bundle/3"), "'morvit-bundle/3'"),
    (lambda f: f.pop("files"), "files: missing"),
    (lambda f: f.update(files=[]), "files"),
    (lambda f: f.update(surprise=1), "surprise: unknown field"),
    (lambda f: f["files"][0].update(sha256="abc"), "files.0.sha256"),
    (lambda f: f["files"][0].update(bytes=-1), "files.0.bytes"),
    (lambda f: f["files"][0].update(bytes="21790"), "files.0.bytes"),
    (lambda f: f.update(batch=0), "batch"),
    (lambda f: f.update(batch="many"), "batch"),
    (lambda f: f.update(input="uint16"), "input"),
    (lambda f: f.update(precision="fp64"), "precision"),
    (lambda f: f["config"].update(num_heads=3), "num_heads: got 3"),
    (lambda f: f["preprocess"].update(resize=99), "preprocess: differs from config.preprocess"),
    (lambda f: f.update(labels=None), "labels: differs from config.labels"),
    (lambda f: f["plan"].update(thresholds=[0.5]), "thresholds"),
    (lambda f: f["plan"].update(format="morvit-plan/9"), "plan.format"),
    (lambda f: f["plan"]["buckets"].append(f["plan"]["buckets"][0]), "buckets"),
]


@pytest.mark.parametrize(("change", "word"), BROKEN, ids=[word for _, word in BROKEN])
def test_a_broken_manifest_is_explained(copied_bundle: Path, change: Callable[[Any], Any], word: str) -> None:
    edit(copied_bundle, change)
    assert word in refusal(copied_bundle)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "\x00",
        "[" * 100_000,
        '{"macs": 1, "macs": 2}',
        '{"batch": ' + "9" * 5000 + "}",
    ],
    ids=lambda text: repr(text[:30]),
)
def test_bad_json_is_one_message(copied_bundle: Path, text: str) -> None:
    (copied_bundle / "manifest.json").write_text(text)
    message = refusal(copied_bundle)
    assert "manifest.json is not a" in message and " a morvit-bundle/2 manifest" in message


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert "a bundle is a folder that `morvit-deploy export` wrote" in refusal(tmp_path)
    assert "cannot read" in refusal(tmp_path / "absent")


def test_another_target_is_named(copied_bundle: Path) -> None:
    edit(copied_bundle, lambda fields: fields.update(target="toaster"))
    with pytest.raises(TargetError, match="'toaster'; this version exports to: onnx"):
        open_bundle(copied_bundle)


def test_a_graph_that_the_runtime_refuses_is_one_message(copied_bundle: Path) -> None:
    """Hashes fit, content does not: as with a bundle of a future version."""
    path = copied_bundle / "model.onnx"
    path.write_bytes(b"not a graph")
    edit(copied_bundle, lambda f: f["files"][0].update(bytes=11, sha256=sha256_of(path)))
    for probes in (False, True):
        with pytest.raises(BundleError, match="cannot load"):
            open_bundle(copied_bundle, probes=probes)


def test_everyone_may_read_a_bundle(tiny_bundle: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o444 for path in tiny_bundle.iterdir()}
    assert set(modes.values()) == {(tiny_bundle / "manifest.json").stat().st_mode & 0o444}, modes


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.update(input="float"), "inputs.image"),
        (lambda m: m.update(batch=4), "inputs.image: batch 1, expected 4"),
        (lambda m: m.update(macs={}), "macs"),
        (lambda m: m["plan"]["buckets"][0].update(capacity=[99, 1, 1]), "capacity: got 99"),
        (lambda m: m["plan"]["buckets"][0].update(capacity=[1]), "capacity: got 1 numbers, expected 3"),
        (lambda m: m.update(outputs=[]), "outputs: logits is missing"),
        (lambda m: m["outputs"][0].update(shape=[1, 12]), "outputs.logits"),
        (lambda m: m.update(probes=["logits"]), "probes"),
    ],
    ids=[
        "input",
        "batch",
        "macs",
        "capacity above N",
        "capacity of one step",
        "no output",
        "classes",
        "probes",
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    copied_bundle: Path, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    edit(copied_bundle, change)
    assert named in refusal(copied_bundle)


def test_ports_that_the_graph_lacks_are_refused(copied_bundle: Path) -> None:
    port = {"name": "heat", "dtype": "uint8", "shape": [1, 4]}
    edit(copied_bundle, lambda m: m["outputs"].append(port))
    with pytest.raises(BundleError, match="heat"):
        open_bundle(copied_bundle)
