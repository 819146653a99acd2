"""An image folder: which pictures, in which order, of which class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import make_config

from morvit_deploy.bundle.images import open_images
from morvit_deploy.errors import ImageError

CONFIG = make_config(labels=["zero", "one", *map(str, range(2, 10))])


def put(folder: Path, *names: str) -> Path:
    """Plain pictures whose grey value is their number."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (36, 36), (number,) * 3).save(folder / name)
    return folder


def test_a_flat_folder_has_no_labels_and_a_fixed_order(tmp_path: Path) -> None:
    put(tmp_path, "c.png", "a.jpg", "B.PNG", "d.webp")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.txt").write_text("nor this")
    images = open_images(str(tmp_path), CONFIG)
    assert [entry.path.name for entry in images.entries] == ["B.PNG", "a.jpg", "c.png", "d.webp"]
    assert images.labels is None
    assert len(images) == 4
    assert images.all().shape == (4, 32, 32, 3)


def test_labels_csv_by_name_and_number(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "sub/b.png", "c.png")
    (tmp_path / "labels.csv").write_text("file,label\nc.png,one\nsub/b.png,7\na.png,zero\n")
    images = open_images(tmp_path, CONFIG)
    assert [entry.path.name for entry in images.entries] == ["c.png", "b.png", "a.png"]
    assert images.labels == [1, 7, 0]


def test_labels_csv_may_have_more_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text("file,label,note\na.png,9,hard one\n", encoding="utf-8-sig")
    assert open_images(tmp_path, CONFIG).labels == [9]


def test_class_subfolders(tmp_path: Path) -> None:
    put(tmp_path, "one/x.png", "zero/y.png", "5/deep/z.png")
    images = open_images(tmp_path, CONFIG)
    assert [entry.path.name for entry in images.entries] == ["z.png", "x.png", "y.png"]
    assert images.labels == [5, 1, 0]


def test_other_subfolders_are_only_folders(tmp_path: Path) -> None:
    put(tmp_path, "beach/x.png", "holidays/y.png")
    images = open_images(tmp_path, CONFIG)
    assert images.labels is None
    assert len(images) == 2


def test_a_misspelt_class_folder_is_named(tmp_path: Path) -> None:
    """Otherwise one stray folder would silently drop every label."""
    put(tmp_path, "one/x.png", "holidays/y.png")
    with pytest.raises(ImageError, match="holidays"):
        open_images(tmp_path, CONFIG)


def test_a_loose_picture_beside_class_folders_leaves_no_labels(tmp_path: Path) -> None:
    put(tmp_path, "one/x.png", "y.png")
    assert open_images(tmp_path, CONFIG).labels is None


def test_a_checkpoint_without_names_takes_numbers(tmp_path: Path) -> None:
    put(tmp_path, "9/x.png", "0/y.png")
    assert open_images(tmp_path, make_config(labels=None)).labels == [0, 9]


@pytest.mark.parametrize(
    "row",
    ["a.png,ten", "a.png,10", "a.png,-1", "a.png,1.0", "a.png,", "a.png", "a.png,²"],
)
def test_an_unknown_label_is_named(tmp_path: Path, row: str) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text(f"file,label\n{row}\n", encoding="utf-8")
    with pytest.raises(ImageError, match=r"labels\.csv.*(expected one of zero, one|expected a header)"):
        open_images(tmp_path, CONFIG)


@pytest.mark.parametrize("text", ["", "file,label\n", "a.png,one\n", "name,class\na.png,one\n"], ids=repr)
def test_labels_csv_without_its_header_or_rows_is_refused(tmp_path: Path, text: str) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ImageError, match=r"labels\.csv: expected a header"):
        open_images(tmp_path, CONFIG)


def test_labels_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe\x00,one\n")
    with pytest.raises(ImageError, match=r"labels\.csv"):
        open_images(tmp_path, CONFIG)


def test_a_picture_that_labels_csv_names_but_is_not_there(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text("file,label\nb.png,one\n")
    with pytest.raises(ImageError, match=r"b\.png does not exist"):
        open_images(tmp_path, CONFIG).all()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(ImageError, match="holds no images"):
        open_images(tmp_path, CONFIG)


def test_a_missing_folder_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is not a folder"):
        open_images(tmp_path / "absent", CONFIG)
    put(tmp_path, "a.png")
    with pytest.raises(ImageError, match="is not a folder"):
        open_images(tmp_path / "a.png", CONFIG)


def test_the_limit_is_a_seeded_subset_in_order(tmp_path: Path) -> None:
    put(tmp_path, *(f"{number:02}.png" for number in range(20)))
    subset, again, other = (open_images(tmp_path, CONFIG, limit=6, seed=seed) for seed in (0, 0, 1))
    names = [entry.path.name for entry in subset.entries]
    assert len(names) == 6 and names == sorted(names)
    assert subset.entries == again.entries != other.entries
    assert len(open_images(tmp_path, CONFIG, limit=20)) == len(open_images(tmp_path, CONFIG, limit=99)) == 20


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_batches_hold_every_picture_once(tmp_path: Path, size: int) -> None:
    images = open_images(put(tmp_path, *(f"{number}.png" for number in range(7))), CONFIG)
    parts = list(images.batches(size))
    assert [len(part) for part, _ in parts[:-1]] == [size] * (len(parts) - 1)
    assert [entry for part, _ in parts for entry in part] == list(images.entries)
    pixels = np.concatenate([pixels for _, pixels in parts])
    assert pixels[:, 0, 0, 0].tolist() == list(range(7))


def test_small_pictures_need_upscale(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="--upscale"):
        open_images(tmp_path, CONFIG).all()
    assert open_images(tmp_path, CONFIG, upscale=True).all().shape == (1, 32, 32, 3)
