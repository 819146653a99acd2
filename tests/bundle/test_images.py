"""An image folder: which pictures, in which order, of which class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import make_config

from morvit_deploy.bundle.images import open_images, remarks_on
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


# --- labels that contradict themselves


CRANES = make_config(labels=["crane", "egret", *map(str, range(2, 9)), "crane"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "a.png,crane",
            r"line 2: label 'crane' is the name of classes 0, 9; give the class's number instead",
        ),
        ("a.png,one\nb.png,egret", r"line 2: got label 'one', expected one of crane, egret, .*, or 0 … 9"),
        ("a.png,1\n./a.png,1", r"line 3: \./a\.png is named in line 2 already; keep one of them"),
        ("a.png,1\nb.png,2\na.png,3", r"line 4: a\.png is named in line 2 already"),
        ("a.png,1\ngone.png,2", r"line 3: gone\.png does not exist"),
        ("a.png,1\nsub,2", r"line 3: sub does not exist, or is no file"),
        ("../a.png,1", r"line 2: got '\.\./a\.png', expected a name inside the folder"),
        ("/etc/passwd,1", r"line 2: got '/etc/passwd', expected a name inside"),
        ("a.png,1,2", r"wrong lines: 2; put a name that contains a comma in quotes"),
        ("a.png,1\n\nb.png,", r"wrong lines: 4"),
        (f"{'a' * 300}.png,1", r"line 2: aaa.* does not exist"),
    ],
)
def test_wrong_rows_are_named_by_line(tmp_path: Path, rows: str, message: str) -> None:
    put(tmp_path, "a.png", "b.png", "sub/c.png")
    (tmp_path / "labels.csv").write_text(f"file,label\n{rows}\n")
    with pytest.raises(ImageError, match=rf"labels\.csv: .*{message}"):
        open_images(tmp_path, CRANES)


def test_several_wrong_rows_are_one_message(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,1\n" for i in range(9)))
    with pytest.raises(ImageError, match=r"9 wrong rows:\n  - line 2: 0\.png (.|\n)*  - and 4 more$"):
        open_images(tmp_path, CONFIG)


@pytest.mark.parametrize(
    "header", ["file,label,label", "file,file,label", "file;label", "File,Label", "file, label"]
)
def test_a_header_with_a_column_twice_or_not_at_all(tmp_path: Path, header: str) -> None:
    """The last of two `label` columns would win."""
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text(f"{header}\na.png,1,2\n")
    with pytest.raises(
        ImageError, match=rf"expected a header `file,label`, each once.*got the header '{header}'"
    ):
        open_images(tmp_path, CONFIG)


def test_a_class_of_a_double_name_is_given_by_number(tmp_path: Path) -> None:
    """As ImageNet's two cranes: a bird and a machine."""
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,9\nb.png,0\n")
    assert open_images(tmp_path, CRANES).labels == [9, 0]
    (tmp_path / "labels.csv").unlink()
    put(tmp_path / "folders", "crane/a.png", "egret/b.png")
    with pytest.raises(ImageError, match=r"folders: label 'crane' is the name of classes 0, 9"):
        open_images(tmp_path / "folders", CRANES)


def test_names_with_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    put(tmp_path, "a,b.png", 'c"d.png', "e\x0bf.png")
    (tmp_path / "labels.csv").write_text('file,label\n"a,b.png",1\n"c""d.png",2\n"e\x0bf.png",3\n')
    assert open_images(tmp_path, CONFIG).labels == [1, 2, 3]


def test_a_table_that_is_no_file_is_not_overlooked(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").symlink_to("gone.csv")
    with pytest.raises(ImageError, match=r"labels\.csv is a link to a file that does not exist"):
        open_images(tmp_path, CONFIG)
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "labels.csv").mkdir()
    with pytest.raises(ImageError, match=r"labels\.csv is a folder"):
        open_images(tmp_path, CONFIG)


# --- what is left out is said


def test_what_was_left_out_is_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / ".d.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("file,label\na.png,1\n")
    images = open_images(tmp_path, CONFIG)
    assert len(images) == 1 and images.skipped == {"hidden": 1, "not in labels.csv": 2}


def test_subfolders_without_pictures_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, "one/a.png", "zero/b.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "__MACOSX" / "one").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "one" / "._a.png").write_bytes(b"x")
    assert open_images(tmp_path, CONFIG).labels == [1, 0]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["beach/x.png", "holidays/y.png"], "no subfolder (beach, holidays) is named by a class"),
        ([f"n0{i}/x.png" for i in range(5)], "no subfolder (n00, n01, n02, …) is named by a class"),
        (["one/x.png", "y.png"], "1 lie outside the class folders"),
        (["x.png"], ""),
        (["one/x.png"], ""),
    ],
)
def test_labels_that_match_nothing_are_said(tmp_path: Path, names: list[str], said: str) -> None:
    assert open_images(put(tmp_path, *names), CONFIG).unlabeled.startswith(said)


def test_an_empty_folder_says_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(
        ImageError, match=r"holds no images \(.*\); skipped 1 \.heic \(not supported; convert"
    ):
        open_images(tmp_path, CONFIG)


def test_orientation_and_frames_are_remarked(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (36, 36)).save(tmp_path / "a.jpg", exif=exif)
    frames = [Image.new("RGB", (36, 36), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    paths = [entry.path for entry in open_images(tmp_path, CONFIG).entries]
    turned, animated = remarks_on(paths, exif=False)
    assert turned.startswith("the EXIF orientation of 1 of 2 images is not applied") and "--exif" in turned
    assert animated == "only the first frame or page is used of 1 of 2 images"
    assert remarks_on(paths, exif=True) == [animated]
    assert remarks_on([tmp_path / "a.jpg"] * 300, exif=False)[0].startswith(
        "the EXIF orientation of 256 of the first 256 im"
    )


def test_pictures_are_turned_where_asked(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture = np.random.default_rng(0).integers(0, 256, (36, 36, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    plain, turned = (open_images(tmp_path, CONFIG, exif=exif).all()[0] for exif in (False, True))
    assert np.array_equal(turned, plain[::-1, ::-1]) and not np.array_equal(turned, plain)
