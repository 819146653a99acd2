"""Merge schedules: as typed, spread over layers, from files; and which models they are refused for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from merged_models import LAYERS, merged_config
from tiny_models import make_config, make_fields

from morvit_deploy.errors import ConfigError
from morvit_deploy.model.config import Config, parse_config
from morvit_deploy.model.merges.schedules import (
    MergeSchedule,
    as_text,
    decreasing,
    earliest,
    even,
    merges_to,
    schedule_of,
    spread,
    typed_schedule,
)
from morvit_deploy.model.merges.schedules import (
    merged_config as merge,
)


def plain(**changes: Any) -> Config:
    return make_config(**({"routing": "none", "sharing": "none", "cycle_depth": LAYERS} | changes))


def typed(text: str, config: Config | None = None) -> tuple[int, ...]:
    return typed_schedule(config or plain(), text, None, proportional=False).merges


@pytest.mark.parametrize(
    ("text", "merges"), [("1", (1, 1, 1)), ("4", (4, 4, 4)), ("8,0,1", (8, 0, 1)), (" 3, 2 ,1", (3, 2, 1))]
)
def test_typed(text: str, merges: tuple[int, ...]) -> None:
    assert typed(text) == merges


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", r"got 0, expected 1 to 4"),
        ("5", r"got 5, expected 1 to 4: .* 3 layers of 16 patch tokens"),
        ("9,1,1", r"got 9 at layer 0 \(from 0\), expected 0 to 8"),
        ("8,5,0", r"got 5 at layer 1 \(from 0\), expected 0 to 4"),
        ("1,1", r"got 2 numbers, expected one, or 3"),
        ("0,0,0", r"only zeros"),
        ("-1", r"got '-1', expected a number of tokens"),
        ("1,,1", r"got '1,,1', expected a number"),
        ("9" * 30, r"got 9+, expected 1 to 4"),
        ("9" * 5000, r"expected a number of tokens"),
    ],
)
def test_typed_wrongly(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        typed(text)


def test_python_gives_numbers_and_lists() -> None:
    assert [as_text(8), as_text([1, 2]), as_text("3"), as_text(Path("a.json"))] == ["8", "1,2", "3", "a.json"]


def test_spread_carries_what_a_layer_cannot_merge() -> None:
    config = plain()
    assert spread(config, 6, even(config)) == (2, 2, 2)
    assert spread(config, 6, decreasing(config)) == (3, 2, 1)
    assert spread(config, 13, earliest(config)) == (8, 4, 1)
    assert spread(config, 13, even(config)) == (5, 5, 3)
    assert spread(config, 99, even(config)) == (8, 4, 2)


@pytest.mark.parametrize(("share", "left"), [(0.9, 15), (0.5, 8), (0.3, 5), (0.18, 3)])
def test_a_share_of_all_tokens_is_left(share: float, left: int) -> None:
    assert 17 - sum(merges_to(plain(), share)) == left


@pytest.mark.parametrize("share", [0.0, -1.0, 1.0, 0.99, 0.1, float("nan")])
def test_an_impossible_share(share: float) -> None:
    with pytest.raises(ConfigError, match=r"merge_to: got .*, expected a share from 0.176 to below 1"):
        merges_to(plain(), share)


def test_layers_without_merges_are_not_listed() -> None:
    config = merge(plain(), MergeSchedule(merges=(3, 0, 2), proportional=True))
    assert config.reduction is not None
    assert (config.reduction.layers, config.capacity) == ((0, 2), (13, 11))
    assert config.reduction.proportional and config.format == "morvit/2"
    assert schedule_of(config) == MergeSchedule(merges=(3, 0, 2), proportional=True)
    assert parse_config(config.to_json()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"routing": "expert_choice"}, "routing 'expert_choice', expected a plain ViT"),
        ({"sharing": "cycle", "cycle_depth": 1}, "tied layers .*sharing 'cycle'"),
        ({"register_tokens": 2}, "2 register tokens, expected none"),
        ({"cls_token": False, "pooling": "mean"}, "a ViT without CLS, expected one whose head reads CLS"),
        ({"pooling": "mean_norm"}, "whose head reads the mean_norm of the patches, expected one"),
        ({"cycle_depth": 1}, "a ViT of one layer"),
    ],
)
def test_other_models_are_refused(changes: dict[str, Any], message: str) -> None:
    config = make_config() if "routing" in changes else plain(**changes)
    with pytest.raises(ConfigError, match=message):
        merge(config, MergeSchedule(merges=(1, 1, 1), proportional=False))
    with pytest.raises(ConfigError, match="tokens"):
        merge(merged_config(), MergeSchedule(merges=(1, 1, 1), proportional=False))


def test_a_file(tmp_path: Path) -> None:
    schedule = MergeSchedule(
        merges=(2, 1, 0), proportional=True, checkpoint="0" * 64, calibration={"images": 3}
    )
    path = tmp_path / "merges.json"
    path.write_text(schedule.to_json())
    assert typed_schedule(plain(), str(path), None, proportional=False) == schedule
    with pytest.raises(ConfigError, match="says whether attention is proportional"):
        typed_schedule(plain(), str(path), None, proportional=True)
    with pytest.raises(ConfigError, match="got 3 numbers, expected one, or 5"):
        typed_schedule(plain(cycle_depth=6), str(path), None, proportional=False)
    path.write_text(json.dumps({"format": "morvit-merges/1", "merges": [1.5]}))
    with pytest.raises(ConfigError, match=r"(?s)not a morvit-merges/1 file.*merges.*proportional: missing"):
        typed_schedule(plain(), str(path), None, proportional=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity": [16, 9, 7]}, r"capacity\[0\]: got 16 after 16, expected 8 to 15"),
        (
            {"capacity": [7, 6, 5]},
            r"capacity\[0\]: got 7 after 16, expected 8 to 15: at least one and at most 8",
        ),
        ({"capacity": [12, 5, 4]}, r"capacity\[1\]: got 5 after 12, expected 6 to 11"),
        ({"capacity": [12, 13, 4]}, r"capacities must not increase"),
        ({"capacity": [12]}, r"got 1 numbers, expected 3"),
        ({"reduction": None}, r"reduction: got null"),
        ({"reduction": {"layers": [0, 1, 3]}}, r"reduction.layers: got \[0, 1, 3\], expected .* from 0 to 2"),
        ({"reduction": {"layers": [0, 1, 2], "fuse": True}}, r"reduction.fuse: expected false"),
        ({"register_tokens": 1}, r"register_tokens: got 1, expected 0 with routing 'merged'"),
        ({"gate": "block"}, r"gate: got 'block'"),
        ({"format": "morvit/1"}, r"expected 'morvit/2'"),
    ],
)
def test_bad_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merged_config(**changes)


def test_the_helper_makes_plain_vits() -> None:
    assert make_fields(routing="none", sharing="none", cycle_depth=LAYERS)["num_recursions"] == 1
