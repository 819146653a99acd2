"""Scenes, and the selections that a model may be trained with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from places import EXAMPLES
from safetensors.torch import load_file

from morvit_deploy.model.config import Config, load_config
from morvit_deploy.model.presets import preset
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.trace import Routing

TOLERANCE = 1e-9  # float64: what other orders of summation leave


@pytest.fixture(autouse=True)
def examples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are scripts, not a package."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])


@pytest.fixture
def model() -> MoRViT:
    """Random weights large enough that images keep different numbers of tokens."""
    small = {"image_size": 32, "embed_dim": 16, "mlp_dim": 32, "num_recursions": 3, "capacity": (12, 7, 3)}
    torch.manual_seed(0)
    config = Config.model_validate({**preset("morvit_tiny_digits").model_dump(), **small, "sharing": "cycle"})
    model = MoRViT(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("spare", [None, 0, 2])
def test_thresholds_route_as_the_reference(model: MoRViT, spare: int | None) -> None:
    import selection
    import trainable

    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    thresholds = (-0.5, 0.0, 0.2)
    with torch.no_grad():
        expected = model(images, Routing(thresholds=thresholds))
        got = trainable.forward(model, images, select=selection.ByThreshold(thresholds), spare=spare)
    assert (expected.logits - got.logits).abs().max() <= TOLERANCE
    assert torch.equal(expected.depth, got.depth)
    assert len(expected.depth.sum(dim=1).unique()) > 1  # images differ, so padding took part


def test_the_batch_shares_its_capacity() -> None:
    import selection

    z = torch.tensor([[5.0, 4.0, 3.0, 2.0], [1.0, 0.0, -1.0, -2.0]])
    active = torch.tensor([[True, True, True, False], [True, True, True, True]])
    choice = selection.AcrossBatch((2,))(0, z, z, active)
    assert choice.keep.tolist() == [[True, True, True, False], [True, False, False, False]]
    assert choice.threshold.tolist() == [[0.5], [0.5]]
    assert selection.ByThreshold((0.5,))(0, z, z, active).keep.equal(choice.keep)


def test_a_capacity_beyond_the_active_tokens_keeps_them_all() -> None:
    import selection

    z = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    active = torch.tensor([[True, False], [True, True]])
    for select in (selection.AcrossBatch((2,)), selection.PerImage((2,)), selection.everything):
        choice = select(0, z, z, active)
        assert choice.keep.equal(active) and choice.threshold.eq(selection.OPEN).all()


@pytest.mark.parametrize("select", ["batch", "image"])
def test_routers_learn_no_more_from_what_all_tokens_share(select: str) -> None:
    import selection
    import trainable

    rule = selection.AcrossBatch((1.5,)) if select == "batch" else selection.PerImage((2,), neutral=True)
    z = torch.tensor([[2.0, 0.5, -1.0], [1.0, 0.2, -0.3]], dtype=torch.float64, requires_grad=True)
    active = torch.ones(2, 3, dtype=torch.bool)
    mask = trainable.keep_mask(z, rule(0, z, z.detach(), active), active)
    mask.sum().backward()  # as if every token were worth the same
    assert z.grad is not None and abs(z.grad.sum().item()) <= TOLERANCE
    z.grad = None
    mask = trainable.keep_mask(z, rule(0, z, z.detach(), active), active)
    mask[0, 2].backward()  # a dropped token is worth having
    assert z.grad[0, 2] > 0 > z.grad[0, 1]


def test_running_thresholds_follow_the_batches() -> None:
    import selection

    running = selection.Running((1,), momentum=0.5)
    active = torch.ones(2, 2, dtype=torch.bool)
    for high in (3.0, 5.0):
        z = torch.tensor([[high, 1.0], [high, 1.0]])
        running(0, z, z, active)
    assert running.thresholds == [2.5]  # of 2.0, then 3.0


def test_a_step_that_kept_all_tokens_once_stays_open() -> None:
    import selection

    running = selection.Running((2, 2, 1), momentum=0.5)
    for last in (1.0, 2.0):
        z = torch.tensor([[3.0, last, 0.0]])
        active = torch.ones(1, 3, dtype=torch.bool)
        for step in range(3):
            active = running(step, z, z, active).keep
    assert running.thresholds == [(0.5 + 1.0) / 2, selection.OPEN, (2.0 + 2.5) / 2]
    running(1, z, z, torch.ones(1, 3, dtype=torch.bool))  # now the step has a threshold
    assert running.thresholds[1] == selection.OPEN


def test_a_trained_model_is_stored_with_thresholds_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="the train extra")
    import scene_objective
    import train_scenes

    monkeypatch.setattr(scene_objective, "SETTLING", 2)
    for name in ("set_num_threads", "set_flush_denormal"):  # of the whole process
        monkeypatch.setattr(torch, name, lambda value: None)
    small = {"embed_dim": 16, "num_heads": 1, "mlp_dim": 16, "capacity": [12, 9, 9, 4]}
    monkeypatch.setitem(train_scenes.__dict__, "SHAPE", train_scenes.SHAPE | small)
    out = tmp_path / "trained"
    monkeypatch.setattr(
        sys,
        "argv",
        ["train_scenes.py", "--out", str(out), "--steps", "2", "--images", "40", "--served", "0.9"],
    )
    with torch.random.fork_rng():
        assert train_scenes.main() == 0
    record, config = json.loads((out / "training.json").read_text()), load_config(out)
    assert config.thresholds is not None and config.capacity == (11, 8, 8, 4)
    assert [tau is None for tau in config.thresholds] == [False, False, True, False]
    assert load_file(out / "model.safetensors")["pos_embed"].dtype == torch.float16
    assert record["images"] == 40 and len(record["budgets"]) == 4
    assert record["top1"] == record["top1_every_token"] - round(record["lost"]["points"] / 100, 4)


def test_a_seed_fixes_the_scenes() -> None:
    pytest.importorskip("sklearn", reason="the train extra")
    import digits
    import scenes

    _, source = digits.load_sources()
    first, again, other = (scenes.draw(source, 8, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.images, again.images) and torch.equal(first.digits, again.digits)
    assert not torch.equal(first.images, other.images)
    assert first.images.min() >= 0 and first.images.max() <= 1
    many = scenes.draw(source, 1000, torch.Generator().manual_seed(1)).objects
    assert many.min() == 1 and many.max() == scenes.MOST
    assert (many == 1).sum() > 2 * (many == 3).sum() > 2 * (many == 9).sum()


def test_a_scene_holds_the_digits_it_says() -> None:
    pytest.importorskip("sklearn", reason="the train extra")
    import digits
    import scenes

    _, source = digits.load_sources()
    asked = torch.arange(scenes.MOST + 1)
    batch = scenes.draw(source, len(asked), torch.Generator().manual_seed(0), asked)
    assert torch.equal((batch.digits >= 0).sum(dim=1), asked) and torch.equal(batch.objects, asked)
    assert torch.equal(batch.labels, batch.digits.amax(dim=1).clamp(min=0)) and batch.labels[0] == 0
    inked = (
        batch.ink.unflatten(1, (4, 16)).unflatten(3, (4, 16)).amax(dim=(2, 4)).flatten(1)
    )  # (batch, cells)
    assert torch.equal(inked > 0.5, batch.digits >= 0)
    patches = scenes.patch_digits(batch, 64)
    assert patches[0].eq(scenes.NOTHING).all()
    assert {*patches[9].tolist()} == {*batch.digits[9].tolist()}


def test_the_shipped_scenes_are_those_that_the_script_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="the train extra")
    import pictures
    import scenes

    monkeypatch.setattr(sys, "argv", ["scenes.py", "--out", str(tmp_path / "scenes")])
    scenes.main()
    shipped = EXAMPLES / "scenes-test"
    assert (tmp_path / "scenes" / "labels.csv").read_text() == (shipped / "labels.csv").read_text()
    drawn, there = (pictures.read(folder)[0] for folder in (tmp_path / "scenes", shipped))
    assert len(there) == scenes.COUNT
    assert (drawn - there).abs().max() <= 1.5 / 255  # a level, where machines round differently


def test_scenes_of_each_number_are_shipped_as_often_as_they_are_drawn() -> None:
    import scenes

    counts = scenes.usual_objects(200).bincount()[1:]
    assert len(counts) == scenes.MOST and counts.sum() == 200 and counts.min() >= 8
    likely = 1 / torch.arange(1.0, scenes.MOST + 1)
    assert (counts - 200 * likely / likely.sum()).abs().max() <= 1
