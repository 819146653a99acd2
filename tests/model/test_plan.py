"""Plans: the ladder of buckets, the plan that needs no calibration, and plans that fit no checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptive_plans import depth_plan, fits, needed, threshold_plan
from config_matrix import EVERY, named
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_models import make_config

from morvit_deploy.errors import PlanError
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import schedule_macs
from morvit_deploy.model.plan import (
    Bucket,
    Plan,
    bucket_macs,
    is_own,
    load_plan,
    own_plan,
    plan_problems,
    topk_plan,
)
from morvit_deploy.model.routings.schedules import last_step_decides

N, STEPS = 16, 3
B0 = {"name": "b0", "capacity": [4, 2], "macs": 10, "share": 0.4, "upto": 4}
FULL = {"name": "full", "capacity": [16, 16], "macs": 99, "upto": 16}
GOOD: dict[str, Any] = {
    "format": "morvit-plan/1",
    "mode": "threshold",
    "thresholds": [0.5, -1.25],
    "buckets": [B0, FULL],
}
OWN, OTHER = "0" * 64, "1" * 64  # fingerprints


def read(**changes: Any) -> Plan:
    return Plan.model_validate_json(json.dumps({**GOOD, **changes}))


@pytest.mark.parametrize("changes", EVERY, ids=named)
def test_the_own_plan_is_the_checkpoints_schedule(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    plan = own_plan(config)
    (bucket,) = plan.buckets
    assert bucket.macs == schedule_macs(config, bucket.capacity)
    if config.capacity is not None:
        assert (plan.mode, bucket.capacity) == ("topk", config.capacity)
    else:
        assert bucket.name == "full"
        assert bucket.capacity == (16,) * config.num_steps
    assert (plan.mode == "depth") == (config.routing == "token_choice")
    assert is_own(plan, config) and not plan.adaptive


def test_a_plan_round_trips() -> None:
    plan = read(calibration={"images": 3}, checkpoint=OWN)
    assert Plan.model_validate_json(plan.to_json()) == plan
    assert plan.buckets[0] == Bucket(name="b0", capacity=(4, 2), macs=10, share=0.4, upto=4)
    assert plan.adaptive and plan.bucket("full") == plan.buckets[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "morvit-plan/2"},
        {"mode": "best"},
        {"mode": "topk", "thresholds": None},
        {"mode": "depth"},
        {"thresholds": None},
        {"thresholds": [float("nan"), 0.5]},
        {"thresholds": [float("inf"), 0.5]},
        {"thresholds": [1e39, 0.5]},
        {"thresholds": [-1e39, 0.5]},
        {"thresholds": ["0.5", 0.5]},
        {"buckets": []},
        {"buckets": [B0, B0]},
        {"buckets": [{**B0, "capacity": []}, FULL]},
        {"buckets": [{**B0, "capacity": [-1, -1]}, FULL]},
        {"buckets": [{**B0, "capacity": [4.5, 2]}, FULL]},
        {"buckets": [{**B0, "share": 1.2}, FULL]},
        {"buckets": [{**B0, "name": "../b0"}, FULL]},
        {"buckets": [{**B0, "name": "stem"}, FULL]},
        {"buckets": [{**B0, "name": "none"}, FULL]},
        {"buckets": [{**B0, "name": "keep"}, FULL]},
        {"buckets": [{**B0, "name": "keep_b0"}, FULL]},
        {"buckets": [{**B0, "macs": 1.5}, FULL]},
        {"buckets": [{**B0, "upto": 17}, FULL]},
        {"buckets": [{**B0, "upto": None}, FULL]},
        {"checkpoint": "0" * 63},
        {"surprise": 1},
    ],
    ids=str,
)
def test_an_impossible_plan_is_refused(changes: dict[str, Any]) -> None:
    assert read()
    with pytest.raises(ValidationError):
        read(**changes)


@pytest.mark.parametrize(("taus", "lead"), [((0.1, None), 0), ((None, 0.1), 1), ((None, None), 0)], ids=str)
def test_the_lead_is_the_first_routed_step(taus: tuple[float | None, ...], lead: int) -> None:
    assert read(thresholds=taus).lead == lead


def test_an_unknown_bucket_lists_those_there_are() -> None:
    with pytest.raises(PlanError, match="got bucket 'b7'; the plan has b0, full"):
        read().bucket("b7")


# files and checkpoints -------------------------------------------------------------------------------------


def written(path: Path, config: Config, change: Callable[[dict[str, Any]], Any] = lambda plan: None) -> Path:
    """A good plan of two buckets for `config` (for routing none: of one), changed, as a file."""
    if config.routing == "expert_choice":
        plan = threshold_plan(config, (0.1, 0.0, 0.2), [(9, 5, 2)])
    elif config.routing == "token_choice":
        plan = depth_plan(config, [(16, 9, 5, 3, 1)])
    else:
        plan = own_plan(config)
    fields = plan.model_dump(mode="json")
    change(fields)
    (path / "plan.json").write_text(json.dumps(fields))
    return path / "plan.json"


def refusal(path: Path, config: Config, fingerprint: str | None = None) -> str:
    with pytest.raises(PlanError) as caught:
        load_plan(path, config, fingerprint)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("routing", ["expert_choice", "expert_choice_flat", "token_choice", "none"])
def test_a_written_plan_is_loaded(tmp_path: Path, routing: str) -> None:
    config = make_config(routing=routing)
    path = written(tmp_path, config, lambda plan: plan.update(checkpoint=OWN))
    plan = load_plan(str(path), config, OWN)
    path.write_text(plan.to_json())
    assert load_plan(path, config, OWN) == plan


def test_a_plan_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    config = make_config()
    path = written(tmp_path, config, lambda plan: plan.update(checkpoint=OWN))
    message = refusal(path, config, OTHER)
    assert "made for another checkpoint (got sha256 111111111111…, the plan expects 000000000000…)" in message
    assert "morvit-deploy calibrate" in message
    assert load_plan(path, config).checkpoint == OWN, "without a checkpoint at hand it is not compared"
    unnamed = written(tmp_path, config)
    assert load_plan(unnamed, config, OTHER).checkpoint is None


def bucket(number: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda plan: plan["buckets"][number].update(changes)


def without_full(plan: dict[str, Any]) -> None:
    plan["buckets"].pop()


def null_at_a_step(plan: dict[str, Any]) -> None:
    plan["thresholds"][1] = None


def nothing_routed(plan: dict[str, Any]) -> None:
    plan["thresholds"] = [None] * STEPS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.update(thresholds=[0.1]), "thresholds: got 1, expected 3 (one for each step)"),
        (null_at_a_step, "buckets.b0.capacity[1]: got 5 after 9, expected 9: no token leaves"),
        (
            without_full,
            "buckets: got 'b0' [9, 5, 2] as the last bucket, expected 'full' with 16 at each step",
        ),
        (bucket(1, name="all"), "buckets: got 'all' [16, 16, 16] as the last bucket, expected 'full'"),
        (bucket(1, capacity=[16, 16, 15]), "buckets: got 'full' [16, 16, 15] as the last bucket, expected"),
        (bucket(1, upto=15), "buckets.full.upto: got 15, expected 16"),
        (bucket(0, upto=17), "buckets: got upto [17, 16], expected ascending numbers"),
        (bucket(0, upto=None), "buckets: got upto [None, 16], expected ascending numbers"),
        (bucket(0, macs=3), "buckets.b0.macs: got 3, expected "),
        (bucket(0, capacity=[9, 5]), "buckets.b0.capacity: got 2 numbers, expected 3"),
        (bucket(0, capacity=[17, 5, 2]), "buckets.b0.capacity: got 17, expected at most 16"),
        (bucket(0, capacity=[5, 9, 2]), "buckets.b0.capacity[1]: got 9 after 5"),
        (nothing_routed, "thresholds: got only null, expected at least one number"),
        (lambda p: p.update(mode="depth", thresholds=None), "mode: got 'depth', expected topk or threshold"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_a_plan_that_does_not_fit_is_explained(tmp_path: Path, change: Any, words: str) -> None:
    config = make_config()
    assert words in refusal(written(tmp_path, config, change), config)


@pytest.mark.parametrize(
    ("routing", "mode"),
    [
        ("token_choice", "topk"),
        ("token_choice", "threshold"),
        ("expert_choice_flat", "threshold"),
        ("expert_choice_flat", "depth"),
        ("none", "depth"),
        ("none", "threshold"),
    ],
)
def test_a_mode_for_another_routing_is_refused(tmp_path: Path, routing: str, mode: str) -> None:
    config = make_config(routing=routing)

    def change(plan: dict[str, Any]) -> None:
        plan.update(mode=mode, thresholds=[0.1] * config.num_steps if mode == "threshold" else None)
        plan["buckets"] = [{**plan["buckets"][-1], "upto": N}]

    assert f"mode: got '{mode}', expected" in refusal(written(tmp_path, config, change), config)


def test_topk_holds_a_token_at_each_step_and_a_dense_model_all(tmp_path: Path) -> None:
    def empty(plan: dict[str, Any]) -> None:
        plan.update(mode="topk", thresholds=None, buckets=plan["buckets"][:1])
        plan["buckets"][0]["capacity"] = [9, 5, 0]

    expert, dense = make_config(), make_config(routing="none")
    assert "greater than or equal to 1" in refusal(written(tmp_path, expert, empty), expert)
    path = written(tmp_path, dense, bucket(0, capacity=[16, 16, 15]))
    assert "capacity: expected 16 at each step: no token leaves" in refusal(path, dense)


def test_every_token_runs_layer_one(tmp_path: Path) -> None:
    config = make_config(routing="token_choice")
    path = written(tmp_path, config, bucket(0, capacity=[15, 9, 5, 3, 1]))
    assert "buckets.b0.capacity[0]: expected 16: every token runs the first layer" in refusal(path, config)


def test_every_problem_is_listed(tmp_path: Path) -> None:
    def change(plan: dict[str, Any]) -> None:
        plan["buckets"][0]["macs"] = 3
        plan["buckets"][1]["upto"] = 15

    config = make_config()
    message = refusal(written(tmp_path, config, change), config)
    assert "buckets.b0.macs" in message and "buckets.full.upto" in message


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"\x00", b'{"format": "morvit-bundle/1"}', b"PK\x03\x04"),
        *(b"[" * 100_000, b'{"mode": "topk", "mode": "depth"}', b'{"buckets": [' + b"9" * 5000 + b"]}"),
    ],
    ids=lambda content: repr(content[:30]),
)
def test_a_file_that_is_no_plan_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    message = refusal(tmp_path / "plan.json", make_config())
    assert "plan.json is not a" in message and " a morvit-plan/1 plan" in message


def test_a_file_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path, tmp_path / ("x" * 300)):
        assert "cannot read" in refusal(path, make_config())


def test_another_schedule_than_the_own_is_an_approximation() -> None:
    config = make_config()
    assert is_own(topk_plan(config, (12, 6, 3)), config)
    assert not is_own(topk_plan(config, (12, 6, 2)), config)
    assert not is_own(threshold_plan(config, (0.1, 0.0, 0.2), []), config)
    depths = make_config(routing="token_choice")
    assert is_own(depth_plan(depths, [(16, 9, 5, 3, 1)]), depths)


def test_macs_of_an_older_plan_are_counted_again(tmp_path: Path) -> None:
    """It counts K and V of the last block, which are no longer formed (rewrite 6); any other number is an error."""
    config = make_config()
    plan = own_plan(config)
    (bucket,) = plan.buckets
    earlier = bucket_macs(config, bucket.capacity, None, unformed_keys=False)
    assert earlier > bucket.macs
    path = tmp_path / "plan.json"
    for macs in (bucket.macs, earlier):
        path.write_text(
            plan.model_copy(update={"buckets": (bucket.model_copy(update={"macs": macs}),)}).to_json()
        )
        assert load_plan(path, config) == plan
    path.write_text(
        plan.model_copy(update={"buckets": (bucket.model_copy(update={"macs": macs + 1}),)}).to_json()
    )
    assert f"expected {bucket.macs:,} for this capacity" in refusal(path, config)


def test_a_hard_gate_reads_no_router_where_nobody_leaves() -> None:
    """The stem's is read; one whose threshold is null is not, and costs nothing."""
    config = make_config(gate="hard")
    width = config.embed_dim
    capacity = (9, 9, 2)
    saved = bucket_macs(config, capacity, (0.1, 0.0, 0.2)) - bucket_macs(config, capacity, (0.1, None, 0.2))
    assert saved == 10 * width  # CLS and nine tokens before the router of step 2


# dispatch --------------------------------------------------------------------------------------------------


def falling(least: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(least, N), min_size=STEPS, max_size=STEPS).map(
        lambda counts: tuple(sorted(counts, reverse=True))
    )


@given(
    ladder=st.lists(falling(1), max_size=4),
    images=st.lists(falling(0), min_size=1, max_size=6),
    lead=st.integers(0, STEPS - 1),
    data=st.data(),
)
def test_dispatch_is_the_table_in_plain_loops(
    ladder: list[tuple[int, ...]], images: list[tuple[int, ...]], lead: int, data: st.DataObject
) -> None:
    config = make_config()
    taus = (None,) * lead + (0.1,) * (STEPS - lead)
    whole = [(N,) * lead + capacity[lead:] for capacity in ladder]
    upto = sorted(data.draw(st.lists(st.integers(0, N), min_size=len(ladder), max_size=len(ladder))))
    plan = threshold_plan(config, taus, whole, upto)
    images = [(N,) * lead + counts[lead:] for counts in images]
    numbers, overflow = plan.dispatched(np.array(images))
    last = len(plan.buckets) - 1
    for counts, number, over in zip(images, numbers, overflow, strict=True):
        predicted = needed(plan, counts)
        assert over == (not fits(counts, plan.buckets[predicted]))
        assert number == (last if over else predicted)


def by_depth(least: int) -> st.SearchStrategy[tuple[int, ...]]:
    return falling(least).map(lambda counts: (N, *counts[1:]))


@given(ladder=st.lists(by_depth(1), max_size=4), images=st.lists(by_depth(0), min_size=1, max_size=6))
def test_depths_are_dispatched_to_the_first_that_fits(
    ladder: list[tuple[int, ...]], images: list[tuple[int, ...]]
) -> None:
    config = make_config(routing="token_choice", sharing="cycle")
    plan = depth_plan(config, ladder)
    numbers, overflow = plan.dispatched(np.array(images))
    assert numbers.tolist() == [needed(plan, counts) for counts in images]
    assert not overflow.any()


def test_a_last_router_that_decides_nothing_has_no_threshold() -> None:
    config = make_config(sharing="cycle", attention_scope="all", gate="hard")
    plan = own_plan(make_config()).model_copy(update={"mode": "threshold", "thresholds": (0.1, 0.0, 0.2)})
    problem = plan_problems(plan, config)[0]
    assert problem.startswith("thresholds[2]: got 0.2, expected null")
    assert not last_step_decides(config) and last_step_decides(make_config())


def test_a_flat_schedule_may_rise_and_counts_cls() -> None:
    config = make_config(routing="expert_choice_flat")
    assert plan_problems(topk_plan(config, (1, 17, 5)), config) == []
    assert not is_own(topk_plan(config, (1, 17, 5)), config)
    (problem,) = plan_problems(topk_plan(config, (1, 18, 5)), config)
    assert "got 18, expected at most 17 (the patch tokens and CLS)" in problem


@pytest.mark.parametrize("routing", ["expert_choice", "expert_choice_flat", "token_choice", "none"])
def test_why_there_is_one_bucket(routing: str) -> None:
    reason = make_config(routing=routing).record.why_one_bucket
    assert (reason is None) == (routing in ("expert_choice", "token_choice"))


@pytest.mark.parametrize("group", [1, 2, 3, 32])
def test_a_graph_runs_a_group_in_the_smallest_bucket_that_holds_all_of_it(group: int) -> None:
    from adaptive_plans import answered_by
    from bucket_plans import TOKEN, depth_ladder, threshold_ladder

    counts = np.array([[4, 4, 1], [5, 3, 1], [9, 9, 9], [4, 4, 2], [8, 7, 1], [2, 1, 0], [8, 6, 2]])
    expected: tuple[list[int], list[bool]] = [], []
    for start in range(0, len(counts), group):
        for known, more in zip(
            expected, answered_by(threshold_ladder(), counts[start : start + group]), strict=True
        ):
            known.extend(more)
    bucket, overflow = threshold_ladder().dispatched(np.array(counts), group)
    assert (bucket.tolist(), overflow.tolist()) == expected
    if group == 1:  # one image at a time unless more are asked for
        small = threshold_ladder().too_small(counts)
        alone = threshold_ladder().chosen(threshold_ladder().predicted(counts), small)
        assert all(map(np.array_equal, alone, (bucket, overflow)))
    deep = np.array([[16, 9, 4], [16, 10, 4], [16, 3, 1]])
    bucket, overflow = depth_ladder().dispatched(deep, group)
    assert bucket.tolist() == {1: [0, 1, 0], 2: [1, 1, 0]}.get(group, [1, 1, 1]) and not overflow.any()
    assert TOKEN.num_steps == deep.shape[1]
    for none in depth_ladder().dispatched(deep[:0], group):
        assert len(none) == 0
