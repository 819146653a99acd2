"""The training forward of `examples/` is the reference in other words: same logits, same depths."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from places import EXAMPLES

from morvit_deploy.model.config import Config, RouterConfig
from morvit_deploy.model.presets import preset
from morvit_deploy.model.reference import MoRViT

TOLERANCE = 1e-9  # float64: what other orders of summation leave


@pytest.fixture(autouse=True)
def examples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are scripts, not a package."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])


def tiny(**changes: object) -> Config:
    """A small relative of the digits preset."""
    small = {"image_size": 32, "embed_dim": 16, "mlp_dim": 32, "num_recursions": 3, "capacity": (12, 7, 3)}
    return Config.model_validate({**preset("morvit_tiny_digits").model_dump(), **small, **changes})


def token_choice(**changes: object) -> Config:
    router = RouterConfig(hidden=(8,), activation="sigmoid", bias=True, shared=True, alpha=1.0)
    return tiny(routing="token_choice", router=router, gate="hard", capacity=None, **changes)


CONFIGS = {
    "expert block active": tiny(),
    "expert block all": tiny(attention_scope="all"),
    "expert delta, two blocks": tiny(gate="delta", cycle_depth=2),
    "expert hard all, two blocks": tiny(gate="hard", attention_scope="all", cycle_depth=2),
    "expert, cycle only": tiny(sharing="cycle"),
    "token all": token_choice(attention_scope="all"),
    "token active": token_choice(attention_scope="active"),
    "token, cycle only": token_choice(attention_scope="all", sharing="cycle"),
}


def random_model(config: Config) -> MoRViT:
    """Random weights large enough that routing and attention are far from uniform."""
    torch.manual_seed(0)
    model = MoRViT(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_training_forward_is_the_reference(config: Config) -> None:
    import trainable

    model = random_model(config)
    images = torch.randn(3, 3, config.image_size, config.image_size, dtype=torch.float64)
    with torch.no_grad():
        expected, got = model(images), trainable.forward(model, images)
    assert (expected.logits - got.logits).abs().max() <= TOLERANCE
    assert torch.equal(expected.depth, got.depth)


@pytest.mark.parametrize("config", [tiny(), token_choice(attention_scope="all")], ids=["expert", "token"])
def test_every_parameter_learns(config: Config) -> None:
    import losses
    import trainable

    model = random_model(config)
    images = torch.randn(4, 3, config.image_size, config.image_size, dtype=torch.float64)
    losses.objective(config, trainable.forward(model, images, noise=0.5), torch.arange(4)).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []


def test_a_dropped_token_still_teaches_its_router() -> None:
    import selection
    import trainable

    z = torch.tensor([[2.0, 0.5, -1.0]], requires_grad=True)
    active = torch.ones(1, 3, dtype=torch.bool)
    choice = selection.PerImage((1,))(0, z.detach(), z.detach(), active)
    mask = trainable.keep_mask(z, choice, active)
    mask[0, 2].backward()
    assert mask.tolist() == [[1.0, 0.0, 0.0]]
    assert z.grad is not None and z.grad[0, 2] > 0


def test_auc_counts_ties_half() -> None:
    from routing_quality import auc

    assert auc(torch.tensor([3, 2]), torch.tensor([1, 2])) == 0.875  # of four pairs: three wins and a tie
    assert auc(torch.tensor([1, 1]), torch.tensor([1])) == 0.5


def test_a_seed_fixes_the_pictures() -> None:
    pytest.importorskip("sklearn", reason="the train extra")
    import digits

    train, test = digits.load_sources()
    assert len(train.labels) == 1347 and len(test.labels) == 450
    picks = torch.arange(6)
    first, again, other = (digits.draw(test, picks, torch.Generator().manual_seed(s), 1.0) for s in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.images.min() >= 0 and first.images.max() <= 1
    assert first.ink.amax(dim=(1, 2)).min() > 0.8  # the whole digit is there


def test_pictures_survive_the_files(tmp_path: Path) -> None:
    import digits
    import pictures

    images = torch.randint(0, 256, (3, 3, 64, 64)) / 255
    batch = digits.Batch(images, torch.tensor([4, 0, 9]), torch.zeros(3, 64, 64))
    pictures.write([batch], tmp_path)
    read, labels = pictures.read(tmp_path)
    assert torch.equal(read, images) and labels.tolist() == [4, 0, 9]
