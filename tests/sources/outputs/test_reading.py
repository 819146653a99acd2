"""The file of `--reference`: what is read of it, and what is said of one that cannot be used."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_outputs import as_inputs, outputs_of, written
from tiny_models import make_config, normalised, random_model

from morvit_deploy.errors import ConfigError
from morvit_deploy.sources.outputs.npz import open_npz
from morvit_deploy.sources.outputs.reading import LIMIT, read_outputs

CONFIG = make_config(labels=[f"kind {i}" for i in range(10)])
MODEL = random_model(CONFIG)
SOUND = outputs_of(MODEL)
EXACT = 1e-14  # the same float64 arithmetic in another order

Arrays = dict[str, Any]
WRONG: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "both": (lambda a: a | as_inputs(MODEL, a), "got images and inputs, expected one of them"),
    "no pictures": (lambda a: {"logits": a["logits"]}, "got logits, expected images .* or inputs"),
    "no logits": (lambda a: {"images": a["images"]}, "got images, expected logits: what your own model returned"),
    "another name": (lambda a: a | {"targets": np.zeros(6)}, "targets: unknown array, expected images, inputs"),
    "no images": (lambda a: {n: v[:0] for n, v in a.items()}, "images: got 0 images, expected at least 1"),
    "counts": (lambda a: a | {"logits": a["logits"][:5]}, "got 6 images, 5 logits, expected one row"),
    "NCHW": (
        lambda a: a | {"images": a["images"].transpose(0, 3, 1, 2).copy()},
        r"images: got uint8 \[6, 3, 32, 32\], expected uint8 \[n, 32, 32, 3\]: pictures as your model takes them",
    ),
    "another size": (lambda a: a | {"images": a["images"][:, :28, :28]}, r"got uint8 \[6, 28, 28, 3\]"),
    "gray": (lambda a: a | {"images": a["images"][..., :1]}, r"got uint8 \[6, 32, 32, 1\]"),
    "one image": (lambda a: {"images": a["images"][0], "logits": a["logits"][0]}, r"got uint8 \[32, 32, 3\]"),
    "float images": (lambda a: a | {"images": a["images"] / 255}, "images: got float64 .*expected uint8"),
    "integer inputs": (
        lambda a: {"inputs": np.zeros((6, 3, 32, 32), np.int64), "logits": a["logits"]},
        "inputs: got int64 .*expected float16 or float32 or float64",
    ),
    "scalar": (lambda a: a | {"logits": np.float32(3)}, r"logits: got float32 \[\], expected"),
    "integer logits": (lambda a: a | {"logits": a["logits"].astype(np.int32)}, "logits: got int32"),
    "complex logits": (lambda a: a | {"logits": a["logits"].astype(np.complex64)}, "logits: got complex64"),
    "bfloat16 logits": (lambda a: a | {"logits": a["logits"].astype("V2")}, r"logits: got \|V2"),
    "text": (lambda a: a | {"logits": a["logits"].astype("U4")}, "logits: got <U4"),
    "objects": (lambda a: a | {"logits": a["logits"].astype(object)}, "logits: got object"),
    "other classes": (lambda a: a | {"logits": a["logits"][:, :7]}, r"got float32 \[6, 7\], expected .* 10 classes"),
    "Fortran order": (lambda a: a | {"logits": np.asfortranarray(a["logits"])}, "logits: stored in Fortran order"),
    "NaN": (
        lambda a: a | {"logits": np.where(np.arange(6)[:, None] == 4, np.nan, a["logits"])},
        "logits: NaN or infinite values in 1 of 6 images, first in image 4",
    ),
    "infinite inputs": (
        lambda a: {"inputs": np.full((6, 3, 32, 32), np.inf), "logits": a["logits"]},
        "inputs: NaN or infinite values in 6 of 6 images",
    ),
    "blank": (lambda a: a | {"images": np.full_like(a["images"], 7)}, "images: every image has one value throughout"),
    "zeros": (lambda a: a | {"logits": 0 * a["logits"]}, "logits: all are zero"),
    "labels in another order": (
        lambda a: a | {"labels": np.array([f"kind {9 - i}" for i in range(10)])},
        "labels: class 0 is 'kind 9', in the checkpoint 'kind 0'",
    ),
    "labels of images": (lambda a: a | {"labels": np.arange(6)}, r"labels: got int64 \[6\], expected the names of"),
}  # fmt: skip  # a line or four each


@pytest.mark.parametrize(("change", "told"), WRONG.values(), ids=WRONG)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, change: Any, told: str) -> None:
    path = written(tmp_path / "r.npz", **change(dict(SOUND)))
    with pytest.raises(ConfigError, match=told) as error:
        read_outputs(path, CONFIG)
    assert str(error.value).startswith(f"--reference: {path} ")


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "r.npz", images=SOUND["images"][:3, :8], logits=SOUND["logits"][:, :2], x=1)
    with pytest.raises(ConfigError) as error:
        read_outputs(path, CONFIG)
    assert all(f"- {name}: " in str(error.value) for name in ("images", "logits", "x"))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[400] ^= 1  # in the data of `images`, which is stored as it is
    path.write_bytes(bytes(content))


def npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, SOUND["logits"])


def torch_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02.")


def with_header(header: bytes, data: bytes = b"") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("logits.npy", start + data)

    return write


def twice(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, SOUND["logits"])
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("logits.npy", buffer.getvalue())


def of_objects(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("README.txt", "what this is")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (emptied, "not a zip file"),
    "cut off": (cut_off, "not a zip file"),
    "a flipped bit": (flipped, "Bad CRC-32"),
    "an .npy": (npy, "not a zip file"),
    "a .pth": (torch_file, "it holds other files than arrays"),
    "another file": (of_objects, "it holds other files than arrays"),
    "an array twice": (twice, "logits.npy is in it twice"),
    "no header": (with_header(b"spam"), "the header of an array cannot be read"),
    "deep header": (with_header(b"(" * 9000), "the header of an array cannot be read"),
    "negative": (with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 10)}"), "shape"),
    "huge": (with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9" + b"9" * 40 + b", 10)}"), "shape"),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("damage", "why"), BROKEN.values(), ids=BROKEN)
def test_broken_files(tmp_path: Path, damage: Callable[[Path], None], why: str) -> None:
    path = written(tmp_path / "r.npz", **SOUND)
    damage(path)
    with pytest.raises(
        ConfigError, match=rf"r.npz is not a complete .npz file of numpy.savez \(.*{why}.*write it again"
    ):
        read_outputs(path, CONFIG)


def test_rows_that_are_promised_and_not_there(tmp_path: Path) -> None:
    """A header may promise terabytes: only the rows that are used are read, and they are missing."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 10)}"
    with_header(header, b"\0" * 40)(tmp_path / "r.npz")
    with (
        pytest.raises(ConfigError, match="does not fit its header"),
        open_npz(tmp_path / "r.npz", "x") as file,
    ):
        file.rows("logits", 64)


def test_places_without_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, told in (("none", "does not exist"), (".", "is not a file"), ("fifo", "is not a file")):
        with pytest.raises(ConfigError, match=told):
            read_outputs(tmp_path / name, CONFIG)


@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64"])
def test_images_and_inputs_are_the_models_input(tmp_path: Path, dtype: str) -> None:
    exact = normalised(CONFIG, SOUND["images"]).numpy()
    found = read_outputs(written(tmp_path / "a.npz", **SOUND), CONFIG)
    assert found.given == "images" and found.total == 6
    assert np.abs(found.normalised(CONFIG) - exact).max() <= EXACT
    inputs = {"inputs": exact.astype(dtype), "logits": SOUND["logits"]}
    found = read_outputs(written(tmp_path / "b.npz", **inputs), CONFIG)
    assert found.given == "inputs"
    assert (found.normalised(CONFIG) == exact.astype(dtype).astype(np.float64)).all()


def test_compressed_and_larger_than_needed(tmp_path: Path) -> None:
    many = {name: np.concatenate([rows] * 20) for name, rows in SOUND.items()}
    np.savez_compressed(tmp_path / "r.npz", **many, labels=np.array(CONFIG.labels))
    found = read_outputs(tmp_path / "r.npz", CONFIG)
    assert found.total == 120 and len(found.pictures) == len(found.logits) == LIMIT


def test_labels_are_not_compared_where_the_checkpoint_has_none(tmp_path: Path) -> None:
    plain = make_config(labels=None)
    path = written(tmp_path / "r.npz", **SOUND, labels=np.array(CONFIG.labels))
    assert read_outputs(path, plain).total == 6
