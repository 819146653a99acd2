"""Unrolled layers are one block only where every tensor is the same."""

from __future__ import annotations

import pytest
import torch
from foreign_checkpoints import block
from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.tensors.ties import (
    Tying,
    differences,
    find_tying,
    near_ties,
    prove_tying,
    tied_tensors,
)

Layers = list[dict[str, Tensor]]
WHAT = "leave it out"


def layers(letters: str) -> Layers:
    """A layer for each letter; the same letter is the same block, in tensors of its own."""
    return [{name: t.clone() for name, t in block(ord(letter)).items()} for letter in letters]


@pytest.mark.parametrize(
    ("letters", "wanted"),
    [
        ("aaaa", Tying("cycle", 1, 4)),
        ("abab", Tying("cycle", 2, 2)),
        ("aabaab", Tying("cycle", 3, 2)),
        ("xaaay", Tying("middle_cycle", 1, 3)),
        ("xababy", Tying("middle_cycle", 2, 2)),
        ("xaax", Tying("middle_cycle", 1, 2)),
        ("abc", Tying("none", 3, 1)),
        ("aab", Tying("none", 3, 1)),
        ("a", Tying("none", 1, 1)),
        ("aa", Tying("cycle", 1, 2)),
        ("xay", Tying("none", 3, 1)),
        ("ababa", Tying("none", 5, 1)),
    ],
)
def test_the_shortest_cycle(letters: str, wanted: Tying) -> None:
    found = find_tying(layers(letters))
    assert found == wanted
    prove_tying(layers(letters), found, WHAT)
    unique = tied_tensors(layers(letters), found)
    for name, layer in zip(found.names(), layers(letters), strict=True):
        assert all(torch.equal(unique[f"{name}.{tensor}"], value) for tensor, value in layer.items())


def test_names_of_layers() -> None:
    assert Tying("middle_cycle", 2, 2).names() == [
        "first",
        "cycle.0",
        "cycle.1",
        "cycle.0",
        "cycle.1",
        "last",
    ]
    assert Tying("none", 2, 1).names() == ["cycle.0", "cycle.1"]


def changed(letters: str, i: int, name: str, by: float) -> Layers:
    found = layers(letters)
    found[i][name].view(-1)[0] += by
    return found


def test_the_smallest_difference_unties() -> None:
    held = layers("aaa")
    weight = held[1]["mlp.fc2.weight"].view(-1)
    weight[5] = torch.nextafter(weight[5], torch.tensor(9.0))
    assert find_tying(held).sharing == "none"
    with pytest.raises(CheckpointError, match=r"layer 1 and layer 0, mlp\.fc2\.weight: max \|Δ\|"):
        prove_tying(held, Tying("cycle", 1, 3), WHAT)


def test_a_tie_that_does_not_hold_lists_tensors_and_differences() -> None:
    held = changed("xaay", 2, "attn.qkv.bias", 0.25)
    with pytest.raises(CheckpointError) as caught:
        prove_tying(held, Tying("middle_cycle", 1, 2), WHAT)
    message = str(caught.value)
    assert "sharing middle_cycle, 1 block(s) applied 2 times): 1 tensor(s) differ" in message
    assert "layer 2 and layer 1, attn.qkv.bias: max |Δ| 0.25" in message
    assert message.endswith(WHAT)


def test_a_long_list_is_cut() -> None:
    with pytest.raises(CheckpointError, match=r"24 tensor\(s\) differ[\s\S]*and 12 more"):
        prove_tying(layers("abc"), Tying("cycle", 1, 3), WHAT)


def test_layers_that_differ_in_more_than_numbers() -> None:
    one, other = layers("aa")
    del other["attn.qkv.bias"]
    other["norm1.weight"] = torch.zeros(3)
    other["norm2.weight"] = other["norm2.weight"].half()
    assert differences(one, other) == {
        "attn.qkv.bias": "in only one of the layers",
        "norm1.weight": "[8] and [3]",
        "norm2.weight": "float32 and float16",
    }
    assert find_tying([one, other]).sharing == "none"


def test_the_same_numbers_of_another_type_are_not_the_same_bits() -> None:
    one, other = ({"norm1.weight": torch.ones(3, dtype=dtype)} for dtype in (torch.float32, torch.float16))
    assert differences(one, other) == {"norm1.weight": "float32 and float16"}
    assert find_tying([one, other]).sharing == "none"


def test_a_tie_broken_by_accident_is_remarked() -> None:
    """As in the official code before it tied attention, too."""
    held = layers("xaay")
    for name in ("attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias"):
        held[2][name] += 0.5
    (remark,) = near_ties(held, find_tying(held))
    assert remark.startswith(
        "layers 1 and 2 are equal except for attn.proj.bias (max |Δ| 0.5), attn.proj.weight"
    )
    assert remark.endswith("loaded as two blocks")


def test_a_near_tie_of_a_longer_cycle_is_remarked() -> None:
    held = changed("abab", 3, "mlp.fc1.weight", 0.5)
    (remark,) = near_ties(held, find_tying(held))
    assert remark.startswith("layers 1 and 3 are equal except for mlp.fc1.weight (max |Δ| 0.5)")


def test_ties_and_strangers_are_not_remarked() -> None:
    for letters in ("aaaa", "xaay", "abc"):
        assert near_ties(layers(letters), find_tying(layers(letters))) == []


def test_a_fresh_model_is_no_near_tie() -> None:
    """Its norms are one and its biases zero in every layer: eight of twelve tensors are equal."""
    held = [
        {name: t if t.ndim > 1 else torch.zeros_like(t) for name, t in layer.items()}
        for layer in layers("abc")
    ]
    assert near_ties(held, find_tying(held)) == []
