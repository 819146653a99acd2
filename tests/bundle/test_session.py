"""A session: any number of pictures through a graph of fixed or dynamic batch; classes from logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_models import make_config, random_pixels

from morvit_deploy import MorvitWarning, open_bundle, predict
from morvit_deploy.agent.core.running import Arrays, Runner
from morvit_deploy.bundle import session
from morvit_deploy.bundle.session import HostDispatch, softmax
from morvit_deploy.errors import ImageError
from morvit_deploy.exporters.check import check_bundle
from morvit_deploy.exporters.onnx import run
from morvit_deploy.machine import diagnosis
from morvit_deploy.machine.this import checked_threads

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
def test_threads_do_not_change_the_classes(
    tiny_bundle: Path, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "checked_threads", checked_threads)  # all cores; other tests have one thread
    pixels = random_pixels(make_config(), 3)
    with open_bundle(tiny_bundle, threads=1) as session, open_bundle(tiny_bundle, threads=threads) as other:
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


def test_what_makes_results_worse_is_said_once_at_open(
    tiny_bundle: Path, image_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "kernel_warnings", lambda lowering: ("int8 products saturate",))
    with pytest.warns(MorvitWarning, match="int8 products saturate") as said:
        opened = open_bundle(tiny_bundle)
    assert [warning.filename for warning in said] == [__file__], "the line that opened it"
    with opened:
        predict(opened, image_files[0])  # warned of already
    with pytest.warns(MorvitWarning) as said:
        predict(tiny_bundle, image_files)
    assert [warning.filename for warning in said] == [__file__]
    assert check_bundle(tiny_bundle).warnings == ("int8 products saturate",)
    assert diagnosis._fit(tiny_bundle).warnings == ("int8 products saturate",)


def test_softmax_of_large_logits() -> None:
    assert softmax(np.array([1000.0, 1000.0, -1000.0])).tolist() == [0.5, 0.5, 0.0]
    assert softmax(np.zeros((2, 4))).sum(axis=1).tolist() == [1.0, 1.0]


# dispatch by the host --------------------------------------------------------------------------------------

SMALL, LARGE, FULL = 0, 1, 2


@dataclass
class Part(Runner):
    """A stem or a trunk that answers by a function, and remembers what it was given."""

    answer: Callable[[Arrays], Arrays]
    given: list[Arrays] = field(default_factory=list)
    closed: int = 0

    def run(self, feeds: Arrays) -> Arrays:
        self.given.append(feeds)
        return self.answer(feeds)

    def close(self) -> None:
        self.closed += 1


class Host:
    """`HostDispatch` over a stem that says which bucket each image needs, and trunks that say who they are."""

    def __init__(self, batch: int | str, needed: list[int], overflowing: tuple[int, ...] = ()) -> None:
        self.needed, self.overflowing, self.opened = needed, overflowing, list[str]()
        self.trunks = {
            name: Part(lambda feeds, n=n: self.trunk(n, feeds)) for n, name in enumerate(("s", "l", "full"))
        }
        self.stem = Part(self.begin)
        buckets = [SimpleNamespace(name=name) for name in self.trunks]
        manifest: Any = SimpleNamespace(
            batch=batch, carried=[SimpleNamespace(name="h")], plan=SimpleNamespace(buckets=buckets)
        )
        self.single = batch == 1
        self.runner = HostDispatch(manifest, self.stem, self.open)

    def begin(self, feeds: Arrays) -> Arrays:
        image = feeds["image"]
        number = np.array([self.needed[i] for i in image], np.int32)
        return {"bucket": number, "h": image[0] if self.single else image, "depth": image[:, None] * 10}

    def trunk(self, number: int, feeds: Arrays) -> Arrays:
        h = np.atleast_1d(feeds["h"])
        overflow = np.array([i in self.overflowing and number != FULL for i in h])
        return {"logits": np.stack([h, np.full_like(h, number)], axis=1), "overflow": overflow}

    def open(self, name: str) -> Part:
        self.opened.append(name)
        return self.trunks[name]

    def __call__(self, *images: int) -> Arrays:
        return self.runner.run({"image": np.array(images)})


def test_images_are_grouped_by_bucket_and_answered_in_their_order() -> None:
    host = Host("dynamic", needed=[LARGE, SMALL, LARGE, FULL, SMALL])
    answer = host(0, 1, 2, 3, 4)
    assert answer["logits"].tolist() == [[0, LARGE], [1, SMALL], [2, LARGE], [3, FULL], [4, SMALL]]
    assert answer["bucket"].tolist() == [LARGE, SMALL, LARGE, FULL, SMALL]
    assert not answer["overflow"].any()
    assert answer["depth"].tolist() == [[0], [10], [20], [30], [40]], "the stem's own answers stay"
    assert "h" not in answer, "what the stem hands on is nobody's answer"
    assert {name: [feeds["h"].tolist() for feeds in part.given] for name, part in host.trunks.items()} == {
        "s": [[1, 4]],
        "l": [[0, 2]],
        "full": [[3]],
    }


def test_who_overflows_is_run_again_in_full() -> None:
    host = Host("dynamic", needed=[SMALL, SMALL, LARGE, FULL], overflowing=(1, 2))
    answer = host(0, 1, 2, 3)
    assert answer["logits"].tolist() == [[0, SMALL], [1, FULL], [2, FULL], [3, FULL]]
    assert answer["bucket"].tolist() == [SMALL, FULL, FULL, FULL]
    assert answer["overflow"].tolist() == [False, True, True, False], "of the bucket that was predicted"
    assert [feeds["h"].tolist() for feeds in host.trunks["full"].given] == [[3], [1, 2]]


def test_groups_of_a_fixed_batch_are_filled_up() -> None:
    host = Host(2, needed=[SMALL, SMALL, SMALL, LARGE])
    answer = host(0, 1, 2, 3)
    assert answer["logits"].tolist() == [[0, SMALL], [1, SMALL], [2, SMALL], [3, LARGE]]
    assert [feeds["h"].tolist() for feeds in host.trunks["s"].given] == [[0, 1], [2, 2]]
    assert [feeds["h"].tolist() for feeds in host.trunks["l"].given] == [[3, 3]]


def test_a_graph_for_one_image_hands_on_values_without_a_batch() -> None:
    host = Host(1, needed=[SMALL, FULL], overflowing=(0,))
    assert host(0)["logits"].tolist() == [[0, FULL]]
    assert host(1)["logits"].tolist() == [[1, FULL]]
    assert all(feeds["h"].shape == () for part in host.trunks.values() for feeds in part.given)


def test_trunks_are_opened_when_first_needed_and_all_are_closed() -> None:
    host = Host("dynamic", needed=[SMALL, LARGE])
    with host.runner:
        host(0)
        assert host.opened == ["s"]
        host(0, 1)
        assert host.opened == ["s", "l"]
    assert [part.closed for part in (host.stem, *host.trunks.values())] == [1, 1, 1, 0]
