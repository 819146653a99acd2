"""A checkpoint that owns its thresholds: what its configuration may hold, how it routes, and which plans it takes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptive_plans import threshold_plan
from tiny_models import EXACT, make_config, make_fields, random_model, zero

from morvit_deploy.errors import ConfigError, PlanError
from morvit_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from morvit_deploy.model.config import Config, parse_config
from morvit_deploy.model.plan import check_plan, is_own, own_plan, plan_problems, topk_plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.trace import Routing
from morvit_deploy.sources.outputs.comparison import digest_of

TAUS, MEANS = [0.5, None, 2.0], [8, 8, 3]
CONFIG = make_config(thresholds=TAUS, capacity=MEANS)


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(json.dumps(make_fields(**changes)))
    return str(caught.value)


def test_older_files_and_digests_stay_the_same() -> None:
    assert "thresholds" not in json.loads(make_config().to_json())
    digested = make_config().model_dump(mode="json", exclude={"provenance"})
    assert digested == make_fields() | {"head_activation": "softmax", "register_tokens": 0}
    assert parse_config(json.dumps(make_fields(thresholds=None))) == make_config()
    assert json.loads(CONFIG.to_json())["thresholds"] == TAUS
    assert digest_of(random_model(CONFIG)) != digest_of(random_model(make_config(capacity=MEANS)))


def test_properties() -> None:
    assert CONFIG.schedule is None and CONFIG.ragged and CONFIG.own_mode == "threshold"
    plain, token, dense = (make_config(routing=name) for name in ("expert_choice", "token_choice", "none"))
    assert plain.schedule == plain.capacity and not plain.ragged and plain.own_mode == "topk"
    assert token.schedule is None and token.ragged and token.own_mode == "depth"
    assert dense.schedule is None and not dense.ragged and dense.own_mode == "topk"
    assert "by the checkpoint's own thresholds" in CONFIG.record.describe(CONFIG)


# a router reads one number of a state that never changes, so depths are counted by hand --------------------------

ONE = [3.0, 2.0, 2.0 - 1e-12, 1.0, 0.5, 0.5 - 1e-12, 0.0, -1.0, *[-9.0] * 8]
TWO = [-9.0] * 16
DEPTHS = [[3, 3, 2, 2, 2, *[0] * 11], [0] * 16]  # a logit that equals the threshold reaches it


def reading_model(config: Config, double: bool = True) -> MoRViT:
    """Each router's logit is the first number of a token's state: its patch's first pixel, which weighs 1."""
    model = random_model(config)
    for part in (model.patch_embed, model.cycle, model.first, model.last, model.routers):
        if part is not None:
            zero(part)
    model.pos_embed.zero_()
    model.patch_embed.proj.weight[0, 0, 0, 0] = 1.0
    for router in model.all_routers():
        router.linears()[0].weight[0, 0] = 1.0
    return model.double() if double else model


def images_of(*values: list[float]) -> torch.Tensor:
    """Images of 4 × 4 patches, each of one value in every channel."""
    patches = torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 4, 4)
    return patches.repeat_interleave(8, 2).repeat_interleave(8, 3).expand(-1, 3, -1, -1)


def test_depths_by_hand() -> None:
    config = make_config(thresholds=TAUS, capacity=MEANS, gate="delta")
    outcome = reading_model(config)(images_of(ONE, TWO))
    assert outcome.depth.tolist() == DEPTHS
    assert [trace.counts for trace in outcome.traces] == [(5, 5, 2), (0, 0, 0)]
    assert not any(trace.overflow for trace in outcome.traces)
    assert outcome.traces[0].margin == 0 and outcome.traces[1].margin == 9.5


def test_a_token_that_left_does_not_return() -> None:
    """With gate `block`, a state v becomes v + σ(v)·v: a token that stays may reach what it did not before."""
    config = make_config(thresholds=[0.4, 1.0, 1.5], capacity=MEANS, gate="block")
    value, expected = 0.8, [0.8]
    for _ in range(3):
        expected.append(expected[-1] * (1 + 1 / (1 + math.exp(-expected[-1]))))
    outcome = reading_model(config)(images_of([value, 0.3, *[-9.0] * 14]))
    assert expected[1] > 1.0 and expected[2] > 1.5
    assert outcome.depth[0].tolist() == [3, *[0] * 15]
    assert abs(outcome.traces[0].states["last"][1, 0].item() - expected[3]) <= EXACT


def test_another_routing_is_taken_in_its_place() -> None:
    config = make_config(thresholds=TAUS, capacity=MEANS, gate="delta")
    outcome = reading_model(config)(images_of(ONE), Routing(capacity=[4, 2, 1]))
    assert outcome.traces[0].counts == (4, 2, 1)


# bad input --------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "too few": ({"thresholds": [0.5, 0.5]}, "thresholds: got 2, expected 3 (one for each step)"),
    "none": ({"thresholds": []}, "thresholds: got 0, expected 3"),
    "only null": (
        {"thresholds": [None] * 3},
        "thresholds: got only null, expected a number for at least one step",
    ),
    "too large": ({"thresholds": [1e39, 0.5, 0.5]}, "thresholds.0: got 1e+39"),
    "text": ({"thresholds": ["0.5", 0.5, 0.5]}, "thresholds.0: got '0.5'; Input should be a valid number"),
    "truth": ({"thresholds": [True, 0.5, 0.5]}, "thresholds.0: got True; Input should be a valid number"),
    "one number": ({"thresholds": 0.5}, "thresholds: got 0.5"),
    "of token_choice": (
        {"routing": "token_choice", "thresholds": [0.5] * 5},
        "thresholds: got [0.5, 0.5, 0.5, 0.5, 0.5] with routing 'token_choice', expected null: only 'expert_choice'",
    ),
    "of flat choice": (
        {"routing": "expert_choice_flat", "thresholds": [0.5] * 3},
        "with routing 'expert_choice_flat', expected null",
    ),
    "of a plain ViT": ({"routing": "none", "thresholds": [0.5] * 3}, "with routing 'none', expected null"),
    "a count that falls without a threshold": (
        {"thresholds": [0.5, None, 0.5], "capacity": [12, 6, 3]},
        "capacity[1]: got 6 after 12, expected 12: no token leaves at a step without a threshold",
    ),
    "no counts": ({"thresholds": [0.5] * 3, "capacity": None}, "capacity: got null, expected 3 numbers"),
    "counts that rise": ({"thresholds": [0.5] * 3, "capacity": [4, 6, 3]}, "capacity[1]: got 6 after 4"),
    "a last router without effect": (
        {"thresholds": [0.5] * 3, "sharing": "cycle", "attention_scope": "all", "gate": "hard"},
        "thresholds[2]: got 0.5, expected null: only CLS is used after the last step",
    ),
}


@pytest.mark.parametrize(("changes", "said"), BAD.values(), ids=BAD)
def test_impossible_thresholds_are_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(**changes)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_thresholds_are_finite(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a morvit/1 configuration"):
        parse_config(CONFIG.to_json().replace("0.5,\n    null", f"{text},\n    null"))


@pytest.mark.parametrize("taus", [(math.nan, None, 0.5), (0.5, math.inf, 0.5), (0.5, 0.5)], ids=str)
def test_what_training_makes_of_them_is_checked_before_it_is_written(taus: Any, tmp_path: Path) -> None:
    """A NaN would be written as null: another routing."""
    model = random_model(CONFIG)
    model.config = CONFIG.model_copy(update={"thresholds": taus})
    with pytest.raises(ConfigError, match=r"the model's configuration is not one of morvit/1:\n.*thresholds"):
        save_checkpoint(model, tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())
    model.config = CONFIG.model_copy(update={"thresholds": TAUS})  # a list
    save_checkpoint(model, tmp_path / "checkpoint")
    assert load_checkpoint(tmp_path / "checkpoint").config == CONFIG


# plans ------------------------------------------------------------------------------------------------------------


def test_the_plan_without_calibration_holds_every_token() -> None:
    plan = own_plan(CONFIG)
    (bucket,) = plan.buckets
    assert (plan.mode, plan.thresholds, bucket.name) == ("threshold", tuple(TAUS), "full")
    assert (bucket.capacity, bucket.upto) == ((16,) * 3, 16)
    assert plan_problems(plan, CONFIG) == [] and is_own(plan, CONFIG) and not plan.adaptive


def test_other_thresholds_are_refused_and_both_are_named() -> None:
    other = threshold_plan(make_config(), (0.5, None, 2.1), [(8, 8, 3)])
    said = (
        r"thresholds: got \[0.5, null, 2.1\], expected the checkpoint's own, \[0.5, null, 2.0\]; fit buckets to "
        "these with `morvit-deploy calibrate`"
    )
    with pytest.raises(PlanError, match=said):
        check_plan(other, CONFIG, None, source="the plan")
    assert not is_own(other, CONFIG)


def test_top_k_is_allowed_and_is_another_model() -> None:
    plan = topk_plan(CONFIG, tuple(MEANS))
    assert plan_problems(plan, CONFIG) == [] and not is_own(plan, CONFIG)
    own = threshold_plan(CONFIG, tuple(TAUS), [(8, 8, 3)])
    assert is_own(own, CONFIG) and not is_own(own, make_config(capacity=MEANS))
