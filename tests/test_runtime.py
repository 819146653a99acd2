"""A session: any number of pictures through a graph of fixed or dynamic batch; classes from logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_config, random_pixels

from morvit_deploy import open_bundle
from morvit_deploy.errors import ImageError
from morvit_deploy.runtime import softmax

CLOSE = 1e-5  # the same float32 graph in another batch: only the order of sums differs


@pytest.mark.parametrize("batch", [4, "dynamic"])
@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_any_number_of_pictures(
    exported: Callable[..., Path], tiny_bundle: Path, batch: int | str, count: int
) -> None:
    pixels = random_pixels(make_config(), count, seed=3)
    with open_bundle(tiny_bundle) as one_by_one:
        expected = one_by_one.run(pixels)
    with open_bundle(
        exported(make_config(attention_scope="active"), batch=batch, with_depth=True)
    ) as session:
        answer = session.run(pixels)
    assert answer["logits"].shape == (count, 10)
    assert np.abs(answer["logits"] - expected["logits"]).max() <= CLOSE
    assert np.array_equal(answer["depth"], expected["depth"])


@pytest.mark.parametrize("threads", [1, 2, None])
def test_threads_do_not_change_the_classes(tiny_bundle: Path, threads: int | None) -> None:
    pixels = random_pixels(make_config(), 3)
    with open_bundle(tiny_bundle) as session, open_bundle(tiny_bundle, threads=threads) as other:
        assert np.abs(session.logits(pixels) - other.logits(pixels)).max() <= CLOSE


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 31, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 1), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
    ids=lambda pixels: f"{pixels.dtype} {pixels.shape}",
)
def test_other_pixels_are_refused(tiny_bundle: Path, pixels: np.ndarray) -> None:
    with (
        open_bundle(tiny_bundle) as session,
        pytest.raises(ImageError, match=r"expected uint8 \[n, 32, 32, 3\]"),
    ):
        session.run(pixels)


def test_probes_are_further_outputs(tiny_bundle: Path) -> None:
    pixels = random_pixels(make_config(), 2)
    with open_bundle(tiny_bundle) as plain, open_bundle(tiny_bundle, probes=True) as probed:
        few, many = plain.run(pixels), probed.run(pixels)
    assert set(few) == {"logits", "depth"}
    assert set(many) == {"logits", "depth", *probed.manifest.probes}
    assert np.abs(few["logits"] - many["logits"]).max() <= CLOSE


def test_a_picture_is_read_as_the_bundle_needs_it(tiny_bundle: Path, image_files: list[Path]) -> None:
    with open_bundle(tiny_bundle) as session:
        assert session.read(image_files[0]).shape == (32, 32, 3)


def test_guesses_are_the_most_probable_classes(tiny_bundle: Path) -> None:
    logits = np.array([0, 3, 1, 3, -2, 0, 0, 0, 0, 0], np.float32)
    with open_bundle(tiny_bundle) as session:
        guesses = session.guesses(logits, 3)
        assert len(session.guesses(logits, 99)) == 10
    assert [guess.index for guess in guesses] == [1, 3, 2]
    assert [guess.label for guess in guesses] == ["1", "3", "2"]
    assert guesses[0].probability == pytest.approx(np.exp(3) / np.exp(logits.astype(float)).sum())


def test_softmax_of_large_logits() -> None:
    assert softmax(np.array([1000.0, 1000.0, -1000.0])).tolist() == [0.5, 0.5, 0.0]
    assert softmax(np.zeros((2, 4))).sum(axis=1).tolist() == [1.0, 1.0]
