"""What wrappers and training code put around a model's names is removed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_checkpoints import vit
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.tensors.prefixes import bare, prefixes

PATH = Path("run.pth")


def named(*keys: str) -> dict[str, Tensor]:
    return {key: torch.full((1,), float(i)) for i, key in enumerate(keys)}


def refused(tensors: dict[str, Tensor], prefix: str | None = None) -> str:
    with pytest.raises(CheckpointError, match=r"run\.pth") as caught:
        bare(tensors, PATH, prefix)
    return str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "blocks.0._orig_mod.norm1.weight",
        "blocks._orig_mod.0.norm1.weight",
        "blocks.0._checkpoint_wrapped_module.norm1.weight",
        "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module.norm1.weight",
        "blocks.0.module.norm1._orig_mod.weight",
        "_forward_module.module.blocks.0.norm1.weight",
    ],
)
def test_wrappers_anywhere_in_a_key(key: str) -> None:
    assert list(bare(named(key, "cls_token"), PATH).tensors) == ["blocks.0.norm1.weight", "cls_token"]


def test_torchs_own_wrappers() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    inner[1] = nn.DataParallel(inner[1])
    assert "1.module.weight" in inner.state_dict()
    found = bare(dict(inner.state_dict()), PATH)
    assert list(found.tensors) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    averaged = bare(dict(AveragedModel(nn.Linear(2, 2)).state_dict()), PATH)
    assert list(averaged.tensors) == ["weight", "bias"] and averaged.prefix == "module."
    assert averaged.dropped == {"n_averaged": "the number of models that were averaged (SWA)"}


def test_a_parameter_called_as_a_wrapper_stays() -> None:
    assert list(bare(named("a.module", "b"), PATH).tensors) == ["a.module", "b"]
    weight = {"n_averaged": torch.ones(2), "a": torch.ones(1)}  # not a counter: it has an axis
    assert list(bare(weight, PATH).tensors) == ["n_averaged", "a"]


def test_a_tensor_with_and_without_its_wrapper() -> None:
    message = refused(named("blocks.0.w", "blocks.0._orig_mod.w"))
    assert "contains blocks.0.w and blocks.0._orig_mod.w, expected one of them" in message


@pytest.mark.parametrize("loss", ["criterion.weight", "loss_fn.weight", "ce_loss.w", "train_metrics.acc.tp"])
def test_a_lightning_module_with_its_loss(loss: str) -> None:
    found = bare({f"model.{key}": t for key, t in vit().items()} | named(loss), PATH)
    assert found.tensors.keys() == vit().keys() and found.prefix == "model."
    assert found.dropped == {loss: "loss or metric of training"}


def test_a_loss_is_dropped_only_beside_a_model_with_a_prefix() -> None:
    """Without one, it may be anything: the rules of the family decide."""
    assert "criterion.weight" in bare(vit() | named("criterion.weight"), PATH).tensors
    assert list(bare(named("model.a", "head.b", "loss.w"), PATH).tensors) == ["model.a", "head.b", "loss.w"]
    assert list(bare(named("loss.w"), PATH).tensors) == ["loss.w"]


@pytest.mark.parametrize("prefix", ["student", "student.", "module.student.", "student.module"])
def test_the_tensors_of_one_module(prefix: str) -> None:
    tensors = named("module.student.module.a", "module.student_ema.a", "module.teacher.a", "module.center")
    found = bare(tensors, PATH, prefix)
    assert {name: t.item() for name, t in found.tensors.items()} == {"a": 0.0}
    assert found.prefix.startswith(prefix.rstrip(".") + ".")
    assert set(found.dropped.values()) == {"outside --prefix"} and len(found.dropped) == 3


def test_a_module_of_a_module() -> None:
    found = bare(named("net.encoder.a", "net.decoder.a"), PATH, "net.encoder")
    assert list(found.tensors) == ["a"] and found.prefix == "net.encoder."


@pytest.mark.parametrize("prefix", ["teacher", "studen", "student.a.", "module.", ".", "stu*"])
def test_a_prefix_that_no_tensor_has(prefix: str) -> None:
    message = refused(named("student.a", "student.b", "ema.a", "center"), prefix)
    assert f"got --prefix {prefix}, with which no tensor begins" in message
    assert message.endswith("expected one of student. (2 tensors), ema. (1 tensors)")


def test_prefixes_where_there_are_none_or_many() -> None:
    assert "none: its names have one part" in refused(named("a", "b"), "c")
    assert "and 3 more" in refused(named(*(f"m{i}.w" for i in range(15))), "c")
    assert prefixes(["a.b", "a.c", "d"]) == {"a.": 2}


def test_nothing_at_all() -> None:
    assert bare({}, PATH).tensors == {}
