"""`config.json`: every impossible value is refused by a message that names field, what came and what was expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_matrix import EVERY, OPTIONS, OWNING, named
from tiny_models import make_config, make_fields

from morvit_deploy.errors import ConfigError
from morvit_deploy.model.config import Config, load_config, parse_config
from morvit_deploy.model.presets import PRESETS, preset

REQUIRED = sorted(set(make_fields()) - {"provenance"})


def refusal(fields: Any) -> str:
    """The message with which a configuration is refused."""
    text = fields if isinstance(fields, str | bytes) else json.dumps(fields)
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return str(caught.value)


@pytest.mark.parametrize("changes", [*EVERY, *OPTIONS, *OWNING], ids=named)
def test_round_trip(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    assert parse_config(config.to_json()) == config
    assert parse_config(config.to_json()).to_json() == config.to_json()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_possible(name: str) -> None:
    config = preset(name)
    assert parse_config(config.to_json()) == config


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'vit_b32', expected one of: morvit_b16, .*vit_b16"):
        preset("vit_b32")


def test_provenance_is_free_and_optional() -> None:
    note = {"source": "a paper", "epochs": 300, "nested": {"a": [1, None]}}
    config = make_config(provenance=note, labels=["zéro", *map(str, range(1, 10))])
    assert parse_config(config.to_json()) == config
    assert "provenance" not in json.loads(make_config().to_json())


@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_field_is_named(field: str) -> None:
    fields = make_fields()
    del fields[field]
    assert f"{field}: missing" in refusal(fields)


@pytest.mark.parametrize("field", ["hidden", "activation", "bias", "shared", "alpha"])
def test_a_missing_router_field_is_named(field: str) -> None:
    fields = make_fields()
    del fields["router"][field]
    assert f"router.{field}: missing" in refusal(fields)


@pytest.mark.parametrize("field", ["mean", "std", "resize", "interpolation"])
def test_a_missing_preprocess_field_is_named(field: str) -> None:
    fields = make_fields()
    del fields["preprocess"][field]
    assert f"preprocess.{field}: missing" in refusal(fields)


def test_unknown_fields_are_named() -> None:
    fields = make_fields(dropout=0.1, router={"temperature": 1.0})
    message = refusal(fields)
    assert "dropout: unknown field" in message
    assert "router.temperature: unknown field" in message


WRONG_TYPES: list[tuple[str, Any]] = [
    ("image_size", "32"),
    ("image_size", 32.0),
    ("image_size", True),
    ("image_size", None),
    ("num_heads", [2]),
    ("norm_eps", "1e-6"),
    ("norm_eps", True),
    ("norm_eps", float("nan")),
    ("norm_eps", float("inf")),
    ("qkv_bias", 1),
    ("qkv_bias", "true"),
    ("capacity", 12),
    ("capacity", "12,6,3"),
    ("head_hidden", 3072),
    ("labels", "digits"),
    ("router", True),
    ("preprocess", []),
    ("provenance", "the paper"),
]


@pytest.mark.parametrize(("field", "value"), WRONG_TYPES, ids=lambda value: repr(value))
def test_a_wrong_type_is_never_converted(field: str, value: Any) -> None:
    message = refusal(make_fields() | {field: value})
    assert f"{field}: got " in message
    if not (isinstance(value, float) and value != value):
        assert repr(value) in message or json.dumps(value) in message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("router.alpha", float("nan")),
        ("router.alpha", "1"),
        ("router.bias", 0),
        ("router.activation", "softmax"),
        ("router.hidden", [0]),
        ("router.hidden", [1.5]),
        ("preprocess.mean", [0.5, 0.5]),
        ("preprocess.std", [0.5, 0.0, 0.5]),
        ("preprocess.std", [0.5, float("nan"), 0.5]),
        ("preprocess.interpolation", "cubic"),
        ("preprocess.resize", 0),
    ],
)
def test_a_wrong_value_inside_is_named_with_its_place(place: str, value: Any) -> None:
    outer, inner = place.split(".")
    fields = make_fields()
    fields[outer][inner] = value
    assert f"{place}" in refusal(fields)


IMPOSSIBLE: list[tuple[dict[str, Any], list[str]]] = [
    ({"format": "morvit/3"}, ["format", "'morvit/3'", "'morvit/1'", "'morvit/2'", "a newer version of"]),
    ({"format": "morvit/1", "pooling": "mean"},
     ["format: got 'morvit/1', expected 'morvit/2' with pooling \"mean\""]),
    ({"cls_token": False, "pooling": "mean"}, ["cls_token: got false, expected true with routing 'expert_choice'"]),
    ({"cls_token": False, "routing": "none"}, ["cls_token: got false, expected pooling 'mean' or 'mean_norm'"]),
    ({"format": "morvit/1", "image_size": [32, 64], "preprocess": {"resize": None}},
     ["format: got 'morvit/1', expected 'morvit/2' with image_size [32, 64]"]),
    ({"format": "morvit/1", "head_activation": "none"}, ["'morvit/2' with head_activation \"none\""]),
    ({"format": "morvit/1", "in_channels": 1, "preprocess": {"mean": [0.5], "std": [0.5]}},
     ["'morvit/2' with in_channels 1"]),
    ({"image_size": [32]}, ["image_size", "got [32]; expected [height, width]"]),
    ({"image_size": [32, 64, 3]}, ["expected [height, width]"]),
    ({"image_size": [0, 64]}, ["expected [height, width], each from 1"]),
    ({"image_size": [32, 32]}, ["image_size", "expected 32, one number for a square"]),
    ({"image_size": [32, 60], "preprocess": {"resize": None}}, ["image_size: got [32, 60], expected a multiple"]),
    ({"image_size": [32, 64]}, ["preprocess.resize: got 36, expected at least image_size [32, 64]"]),
    ({"image_size": [32, 64], "preprocess": {"resize": [64, 32]}}, ["got [64, 32], expected at least image_size"]),
    ({"patch_stride": 8}, ["patch_stride: got 8, expected less than patch_size 8"]),
    ({"patch_stride": 0}, ["patch_stride", "got 0"]),
    ({"patch_stride": 4, "image_size": 7, "preprocess": {"resize": None}}, ["got 7, expected at least patch_size 8"]),
    ({"in_channels": 0}, ["in_channels", "got 0"]),
    ({"in_channels": 65}, ["in_channels", "got 65"]),
    ({"in_channels": 1, "preprocess": {"mean": [0.5] * 3, "std": [0.5] * 3}},
     ["preprocess.mean: got 3 values, expected 1 (in_channels)"]),
    ({"pooling": "max"}, ["is not a morvit/2", "pooling: got 'max'", "'cls', 'mean' or 'mean_norm'"]),
    ({"image_size": 0}, ["image_size", "got 0", "greater than or equal to 1"]),
    ({"image_size": 8 * 257}, ["image_size", "66,049 patches of 8 pixels", "at most 65,536"]),
    ({"image_size": 10**10}, ["image_size", "got 10000000000", "less than or equal to 1000000"]),
    ({"preprocess": {"resize": [32, 31]}}, ["preprocess.resize: got [32, 31]", "32"]),
    ({"preprocess": {"mean": [123.675, 116.28, 103.53]}}, ["mean", "got 123.675", "divide one for 0 … 255 by 255"]),
    ({"preprocess": {"std": [58.395, 57.12, 57.375]}}, ["std", "got 58.395", "images in [0, 1]"]),
    ({"preprocess": {"mean": [1e40, 0, 0]}}, ["mean", "got 1e+40"]),
    ({"preprocess": {"resize": [32]}}, ["got [32]; expected 1 to 1,000,000 pixels"]),
    ({"preprocess": {"crop_rounding": "up"}}, ["preprocess.crop_rounding: got 'up'"]),
    ({"patch_size": -8}, ["patch_size", "got -8", "greater than or equal to 1"]),
    ({"image_size": 33}, ["image_size", "got 33", "multiple of patch_size 8"]),
    ({"patch_size": 64}, ["image_size", "got 32", "multiple of patch_size 64"]),
    ({"num_heads": 3}, ["num_heads", "got 3", "divisor of embed_dim 16"]),
    ({"norm_eps": 0}, ["norm_eps", "got 0", "greater than 0"]),
    ({"activation": "silu"}, ["activation", "'silu'", "'gelu'", "'gelu_tanh'", "'relu'"]),
    ({"sharing": "all"}, ["sharing", "'all'", "'middle_cycle'"]),
    ({"routing": "soft"}, ["routing", "'soft'", "'expert_choice'"]),
    ({"gate": "add"}, ["gate", "'add'", "'block'"]),
    ({"attention_scope": "global"}, ["attention_scope", "'global'", "'active'"]),
    ({"num_recursions": 0}, ["num_recursions", "got 0"]),
    ({"sharing": "none", "num_recursions": 3}, ["num_recursions", "got 3", "expected 1"]),
    ({"num_classes": 11}, ["labels", "got 10", "expected 11"]),
    ({"labels": []}, ["labels", "got 0", "expected 10"]),
    ({"capacity": None}, ["capacity", "got null", "expected 3"]),
    ({"capacity": []}, ["capacity", "got 0 numbers", "expected 3"]),
    ({"capacity": [12, 6]}, ["capacity", "got 2", "expected 3"]),
    ({"capacity": [17, 6, 3]}, ["capacity", "got 17", "at most 16"]),
    ({"capacity": [12, 6, 7]}, ["capacity[2]", "got 7 after 6"]),
    ({"capacity": [12, 6, 0]}, ["capacity.2", "got 0", "greater than or equal to 1"]),
    ({"router": None}, ["router", "got null", "'expert_choice'"]),
    ({"preprocess": {"resize": 31}}, ["preprocess.resize", "got 31", "at least image_size 32"]),
    ({"routing": "token_choice", "capacity": [12, 6, 3]}, ["capacity", "got [12, 6, 3]", "expected null"]),
    ({"routing": "token_choice", "gate": "block"}, ["gate", "got 'block'", "hard"]),
    ({"routing": "token_choice", "router": None}, ["router", "got null"]),
    ({"routing": "expert_choice_flat", "capacity": None}, ["capacity", "got null", "expected 3"]),
    ({"routing": "expert_choice_flat", "capacity": [9, 4]}, ["capacity", "got 2", "expected 3"]),
    ({"routing": "expert_choice_flat", "capacity": [9, 18, 4]}, ["capacity", "got 18", "at most 17", "and CLS"]),
    ({"routing": "expert_choice_flat", "capacity": [9, 0, 4]}, ["capacity.1", "got 0"]),
    ({"routing": "expert_choice_flat", "gate": "block"}, ["gate", "got 'block'", "hard", "only form"]),
    ({"routing": "expert_choice_flat", "attention_scope": "all"}, ["attention_scope", "got 'all'", "active"]),
    ({"routing": "expert_choice_flat", "sharing": "cycle"}, ["sharing", "got 'cycle'", "middle_cycle"]),
    ({"routing": "expert_choice_flat", "router": None}, ["router", "got null", "'expert_choice_flat'"]),
    ({"routing": "none", "capacity": [12, 6, 3]}, ["capacity", "got [12, 6, 3]", "expected null"]),
    ({"routing": "none", "gate": "delta"}, ["gate", "got 'delta'", "hard"]),
    ({"routing": "none", "router": {}}, ["router", "got ", "expected null"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), IMPOSSIBLE, ids=lambda value: str(value)[:60])
def test_an_impossible_value_is_explained(changes: dict[str, Any], words: list[str]) -> None:
    message = refusal(make_fields(**changes))
    for word in words:
        assert word in message


def test_every_problem_is_told_at_once() -> None:
    message = refusal(make_fields(num_heads=5, capacity=[3, 9], labels=["a"]))
    assert all(field in message for field in ("num_heads:", "capacity:", "capacity[1]:", "labels:"))


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"format": "morvit/1",}', b"\xff\xfe", b"\x89PNG\r\n"],
    ids=repr,
)
def test_broken_json_is_one_message(text: str | bytes) -> None:
    message = refusal(text)
    assert "config.json is not a JSON file: " in message and "expected a morvit/1 configuration" in message


@pytest.mark.parametrize("text", ["[]", "null", "3", '"morvit/1"'])
def test_json_of_something_else_is_one_message(text: str) -> None:
    assert "config.json is not a morvit/1 configuration" in refusal(text)


def test_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json is not a JSON file") as caught:
        load_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_config().gate = "hard"  # type: ignore[misc]


def test_derived_numbers() -> None:
    config = make_config(cycle_depth=2)
    assert (config.num_patches, config.num_layers, config.num_steps) == (16, 8, 3)
    assert make_config(routing="token_choice").num_steps == 5
    assert make_config(sharing="cycle").num_layers == 3


def test_what_a_routing_implies() -> None:
    """Does a token leave for good, is CLS routed, how many tokens are?"""

    def implied(config: Config) -> tuple[bool, bool, int]:
        return config.record.nested, config.record.routes_cls, config.routed_tokens

    assert implied(make_config(routing="expert_choice_flat")) == (False, True, 17)
    for routing in ("expert_choice", "token_choice", "none"):
        assert implied(make_config(routing=routing)) == (True, False, 16)


def test_a_preprocess_that_squashes_is_written_and_read() -> None:
    changes = {"resize": [40, 48], "crop_rounding": "down"}
    config = make_config(preprocess=changes)
    assert config.preprocess.resize == (40, 48) and config.preprocess.crop_rounding == "down"
    assert parse_config(config.to_json()) == config
    assert json.loads(config.to_json())["preprocess"].items() >= changes.items()
    assert "crop_rounding" not in json.loads(make_config().to_json())["preprocess"], (
        "files of before stay the same"
    )


def test_equal_keys_are_refused() -> None:
    text = make_config().to_json().replace('"patch_size": 8', '"patch_size": 8, "patch_size": 4')
    assert "got the key 'patch_size' twice in one object" in refusal(text)


@pytest.mark.parametrize(
    ("changes", "patches", "tokens", "layers", "steps", "routed"),
    [
        # middle_cycle: first, cycle_depth × num_recursions, last
        ({"image_size": 48, "preprocess": {"resize": 48}}, 36, 37, 5, 3, 36),
        ({"image_size": 24, "patch_size": 12, "capacity": [4, 2, 1]}, 4, 5, 5, 3, 4),
        ({"sharing": "cycle", "cycle_depth": 2}, 16, 17, 6, 3, 16),
        ({"cycle_depth": 3, "num_recursions": 2, "capacity": [12, 6]}, 16, 17, 8, 2, 16),
        ({"routing": "none", "register_tokens": 4}, 16, 21, 5, 3, 16),
        ({"routing": "token_choice", "cycle_depth": 2}, 16, 17, 8, 8, 16),  # a depth counts layers
        (
            {"routing": "expert_choice_flat", "image_size": 48, "preprocess": {"resize": None}},
            36,
            37,
            5,
            3,
            37,
        ),  # and CLS
        ({"routing": "none", "sharing": "cycle"}, 16, 17, 3, 3, 16),
    ],
)
def test_derived_numbers_by_hand(
    changes: dict[str, Any], patches: int, tokens: int, layers: int, steps: int, routed: int
) -> None:
    config = make_config(**changes)
    found = (config.num_patches, config.num_tokens, config.num_layers, config.num_steps, config.routed_tokens)
    assert found == (patches, tokens, layers, steps, routed)


@pytest.mark.parametrize(("characters", "cut"), [(58, False), (59, True)])
def test_a_long_value_is_cut_at_60_characters(characters: int, cut: bool) -> None:
    told = refusal(make_fields(sharing="x" * characters))  # with its quotes two more
    assert ("xxx..." in told) == cut


@pytest.mark.parametrize("format", ["morvit/0", "morvit-plan/9", "morvit/", "morvit", "", 3, None])
def test_only_a_later_number_is_a_newer_version(format: Any) -> None:
    message = refusal(make_fields(format=format))
    assert "format: got" in message and "newer version" not in message
