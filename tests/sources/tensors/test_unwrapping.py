"""The weights inside what training scripts save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.tensors.prefixes import without_prefixes
from morvit_deploy.sources.tensors.unwrapping import unwrap

PATH = Path("run.pth")
ONE, TWO, THREE = ({"w": torch.full((2,), float(i))} for i in (1, 2, 3))


def value(held: Any, ema: bool = True) -> tuple[float, str | None]:
    found = unwrap(held, PATH, ema)
    return found.tensors["w"][0].item(), found.wrapper


def refused(held: Any, ema: bool = True, entry: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        unwrap(held, PATH, ema, entry)
    return str(caught.value)


CASES: dict[str, tuple[Any, bool, tuple[float, str | None]]] = {
    "bare": (ONE, True, (1, None)),
    "state_dict": ({"state_dict": ONE, "epoch": 3}, True, (1, "state_dict")),
    "model": ({"model": ONE}, True, (1, "model")),
    "PyTorch's tutorial": ({"model_state_dict": ONE, "optimizer_state_dict": {}}, True, (1, "model_state_dict")),
    "ema before model": ({"model": ONE, "model_ema": TWO}, True, (2, "model_ema")),
    "timm's ema first": ({"state_dict": ONE, "model_ema": TWO, "state_dict_ema": THREE}, True, (3, "state_dict_ema")),
    "no ema": ({"model": ONE, "model_ema": TWO}, False, (1, "model")),
    "ema never begun": ({"model": ONE, "model_ema": {}}, True, (1, "model")),
    "ema is none": ({"model": ONE, "model_ema": None}, True, (1, "model")),
    "state_dict before model": ({"model": ONE, "state_dict": TWO}, True, (2, "state_dict")),
    "arch in model": ({"model": "vit_tiny", "state_dict": ONE}, True, (1, "state_dict")),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("held", "ema", "wanted"), CASES.values(), ids=CASES)
def test_which_weights(held: Any, ema: bool, wanted: tuple[float, str | None]) -> None:
    assert value(held, ema) == wanted


def test_everything_left_out_has_its_rule() -> None:
    held = {
        "model": ONE | {"step": 7},
        "model_ema": {},
        "state_dict": TWO,
        "optimizer": {"state": {0: ONE}},
        5: None,
    }
    dropped = unwrap(held, PATH, ema=True).dropped
    assert dropped == {
        "model": "weights; those under state_dict are preferred",
        "model_ema": "contains no tensors",
        "optimizer": "training state",
        "5": "training state",
    }
    dropped = unwrap({"model": ONE | {"step": 7}, "model_ema": TWO}, PATH, ema=False).dropped
    assert dropped == {
        "step": "not a tensor: int",
        "model_ema": "averaged weights, skipped by --no-ema",
    }
    assert (
        "(--no-ema selects these)"
        in unwrap({"model": ONE, "model_ema": TWO}, PATH, ema=True).dropped["model"]
    )


def test_training_state_of_any_size_is_left_out() -> None:
    adam = {"state": {i: {"exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)} for i in range(50)}}
    state = {
        "optimizer_states": [adam],
        "optimizerG": adam,
        "lr_schedulers": [adam],
        "rng_state": torch.ones(3),
    }
    metrics = {"best_acc": torch.tensor(0.9), "top1": torch.tensor(0.9)}
    assert value({"state_dict": ONE} | state | metrics) == (1, "state_dict")


@pytest.mark.parametrize("name", ["router", "classifier", "teacher_state_dict", "example_weights"])
@pytest.mark.parametrize("kind", ["dictionary", "tensor", "list"])
def test_weights_beside_the_weights_are_refused(name: str, kind: str) -> None:
    beside: Any = {"dictionary": {"w": torch.ones(3)}, "tensor": torch.ones(3), "list": [torch.ones(3)]}[kind]
    message = refused({"model": ONE, name: beside})
    assert "run.pth contains other weights besides model" in message and f"{name} (1 weights)" in message


def test_weights_deeper_than_the_state_dict_are_refused() -> None:
    assert "head (2 weights)" in refused(ONE | {"head": {"w": torch.ones(3), "b": torch.ones(3)}})


def test_no_state_dict() -> None:
    assert "got a list" in refused([ONE])
    assert "got a Tensor" in refused(torch.ones(2))
    assert "its entries are none" in refused({})
    assert "its entries are weights (2 weights), epoch" in refused(
        {"weights": {"a": TWO, "b": ONE}, "epoch": 1}
    )
    assert "its entries are a (2 weights)" in refused({"a": [torch.ones(2), torch.ones(2)]})
    message = refused({"model_ema": ONE, "epoch": 1}, ema=False)
    assert "(--no-ema skips model_ema)" in message


def test_many_entries_are_not_all_listed() -> None:
    assert "and 88 more" in refused({f"entry{i}": i for i in range(100)})


def test_parameters_come_without_their_graph() -> None:
    found = unwrap({"w": nn.Parameter(torch.ones(2))}, PATH, ema=True)
    assert not found.tensors["w"].requires_grad


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "net.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "net.model.module.",
    ],
)
def test_prefixes_in_any_order(prefix: str) -> None:
    tensors, found = without_prefixes({f"{prefix}a.w": ONE["w"], f"{prefix}b": TWO["w"]})
    assert found == prefix and list(tensors) == ["a.w", "b"]


def test_a_prefix_that_one_key_lacks_stays() -> None:
    tensors, found = without_prefixes({"model.a": ONE["w"], "model.b": ONE["w"], "loss.w": ONE["w"]})
    assert found == "" and list(tensors) == ["model.a", "model.b", "loss.w"]


def test_keys_that_are_no_strings() -> None:
    assert list(unwrap({0: torch.ones(2), "a": torch.ones(2)}, PATH, ema=True).tensors) == ["0", "a"]


HELD: dict[str, Any] = {
    "ema": {"module": TWO, "decay": 0.9},
    "model": ONE,
    "a.b": THREE,
    "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
    "epoch": 3,
}


@pytest.mark.parametrize(
    ("entry", "wanted"), [("model", 1), ("ema.module", 2), ("a.b", 3)], ids=["plain", "nested", "dotted name"]
)
def test_the_entry_that_is_asked_for(entry: str, wanted: float) -> None:
    found = unwrap(HELD, PATH, ema=True, entry=entry)
    assert (found.tensors["w"][0].item(), found.wrapper) == (wanted, entry)
    assert found.dropped["epoch"] == "not chosen by --entry"


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("swa", "no such entry"),
        ("ema.modul", "no such entry"),
        ("ema", "an entry without tensors (dict)"),
        ("epoch", "an entry without tensors (int)"),
        ("model.w.x", "no such entry"),
        (".", "no such entry"),
    ],
)
def test_entries_that_there_are_not(entry: str, what: str) -> None:
    message = refused(HELD, entry=entry)
    assert f"got --entry {entry}, {what}; expected one of its state dicts: " in message
    assert message.endswith("ema.module (1 weights), model (1 weights), a.b (1 weights)")


def test_an_entry_in_a_file_that_has_none() -> None:
    message = refused(ONE, entry="model")
    assert message.endswith("expected one of its state dicts: none; leave the option out")


def test_an_entry_that_holds_two_models() -> None:
    assert "contains other weights besides its tensors: head" in refused(
        {"model": ONE | {"head": {"w": torch.ones(3)}}}, entry="model"
    )


def test_an_entry_allows_what_is_beside_it() -> None:
    """Weights beside the model are refused only while nobody has chosen."""
    held = {"model": ONE, "router": {"w": torch.ones(3)}}
    assert "give --entry model" in refused(held)
    assert unwrap(held, PATH, ema=True, entry="model").dropped == {"router": "not chosen by --entry"}


def test_entries_are_offered_where_no_usual_one_is() -> None:
    message = refused({"generator": ONE, "discriminator": {"net": TWO}, "epoch": 1})
    assert message.endswith("Choose one with --entry: generator, discriminator.net")


def test_two_keys_that_are_the_same_text() -> None:
    assert "two tensors named 1, expected each name once" in refused({1: torch.ones(2), "1": torch.ones(2)})
