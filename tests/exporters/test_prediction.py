"""`predict` from Python: what the command line prints, as objects that a notebook shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
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
