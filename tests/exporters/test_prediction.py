"""`predict` from Python: what the command line prints, as objects that a notebook shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from broken_answers import answer_nan
from bucket_plans import EXPERT, threshold_ladder
from commands import answer

import morvit_deploy as md
from morvit_deploy.agent.core.running import AT_A_TIME


def test_it_returns_what_the_command_prints(tiny_bundle: Path, image_files: list[Path]) -> None:
    found = md.predict(tiny_bundle, image_files, top=2)
    printed = answer("predict", tiny_bundle, *image_files, "--top", 2)["predictions"]
    assert [one.as_dict() for one in found] == printed
    assert [one.label for one in found] == [row["top"][0]["label"] for row in printed]


def test_a_file_files_or_a_folder(tiny_bundle: Path, image_files: list[Path]) -> None:
    folder = md.predict(tiny_bundle, image_files[0].parent)
    assert [one.image for one in folder] == image_files
    assert md.predict(tiny_bundle, str(image_files[1])) == folder[1:2]
    with md.open_bundle(tiny_bundle) as session:
        again = md.predict(session, image_files)
        assert again == folder and session.logits(again[0].pixels[None]).shape == (1, 10)
    with pytest.raises(md.ImageError):
        md.predict(tiny_bundle, [image_files[0], "gone.png"])


def test_a_bad_image_does_not_lose_the_others(tiny_bundle: Path, image_files: list[Path]) -> None:
    """As on the command line; the error has the predictions, so that none is mistaken for another image's."""
    given = [image_files[0], "gone.png", image_files[1], Path("gone.jpg")]
    with pytest.raises(
        md.IncompleteError, match=r"2 of 4 images could not be read:\n  - gone\.png does"
    ) as caught:
        md.predict(tiny_bundle, given)
    assert isinstance(caught.value, md.ImageError) and caught.value.exit_status == 1
    assert caught.value.partial == md.predict(tiny_bundle, image_files[:2])
    with pytest.raises(md.ImageError, match="no image could be read") as none:
        md.predict(tiny_bundle, ["gone.png", "gone.jpg"])
    assert none.value.exit_status == 2


def test_answers_that_are_not_finite(
    tiny_bundle: Path, image_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_nan(monkeypatch, 0)
    with pytest.raises(
        md.IncompleteError, match=r"1 of 6 images could not be classified(.|\n)*'topk', run by ONNX"
    ):
        md.predict(tiny_bundle, image_files)
    with pytest.raises(md.AnswerError, match="got NaN or Inf in 10 of 10"):
        md.predict(tiny_bundle, image_files[0])
    with md.open_bundle(tiny_bundle) as session, pytest.raises(md.AnswerError):
        session.logits(np.zeros((2, 32, 32, 3), np.uint8))


def test_folders_and_files_together(tiny_bundle: Path, image_files: list[Path], tmp_path: Path) -> None:
    """A folder stands for its pictures; a labels.csv that names others has no say in it."""
    folder = image_files[0].parent
    found = md.predict(tiny_bundle, [folder, image_files[2]])
    assert [one.image for one in found] == [*image_files, image_files[2]]
    with pytest.raises(md.ImageError, match="is a folder without images"):
        md.predict(tiny_bundle, tmp_path)


def test_many_images_go_through_in_parts(tiny_bundle: Path, image_files: list[Path]) -> None:
    many = image_files * (AT_A_TIME // len(image_files) + 1)
    assert len(many) > AT_A_TIME
    found = md.predict(tiny_bundle, many)
    assert [one.image for one in found] == many and found[-1] == found[5]


def test_each_shows_itself(tiny_bundle: Path, image_files: list[Path]) -> None:
    found = md.predict(tiny_bundle, image_files)
    assert found[0].depth is not None and found[0].depth.ndim == 1
    assert found[0].depth_map().startswith(b"\x89PNG")
    for one in (found, found[0]):
        page = one._repr_html_()
        assert "<table>" in page and "data:image/png;base64," in page and "://" not in page
        assert len(repr(one)) < 200 and str(image_files[0]) in repr(one)
    assert repr(found).startswith("Predictions(6 images: Prediction(")


def test_a_bundle_without_depth(exported: Callable[..., Path], image_files: list[Path]) -> None:
    bundle = exported(EXPERT, plan=threshold_ladder())
    found = md.predict(bundle, image_files)
    assert found[0].depth is None and "<img" not in found._repr_html_()
    with pytest.raises(md.TargetError, match="with_depth=True"):
        found[0].depth_map()
    with md.open_bundle(bundle) as session:
        outputs = session.run(np.stack([one.pixels for one in found]))
        names = [bucket.name for bucket in session.manifest.plan.buckets]
    assert [one.bucket for one in found] == [names[number] for number in outputs["bucket"]]
