"""From pictures to a plan: in one pass, in shards, within a budget. Plans are compared byte by byte."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_setup import COUNT, UNIT, break_picture, save_model, save_pictures
from tiny_models import normalised

from morvit_deploy.bundle.images import open_images
from morvit_deploy.calibration.buckets.costs import MeasuredCost
from morvit_deploy.calibration.routing import gathering, sequence
from morvit_deploy.calibration.routing.statistics import Shard
from morvit_deploy.errors import ImageError, MorvitError, OutputError, PlanError
from morvit_deploy.model.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from morvit_deploy.model.plan import load_plan, plan_problems
from morvit_deploy.model.trace import Routing
from morvit_deploy.planning import rounds as planning
from morvit_deploy.planning.rounds import Calibrated, Waiting, Wish, calibrate, calibrate_shard, merge_shards

SCALES = (0.5, 1.0, 1.6)
# thresholds at the trained capacities, whatever they do to a random model
FEW: dict[str, Any] = {"mode": "threshold", "buckets": 2, "scale": 1.0, "allow_worse": True}

LET: dict[str, Any] = {"allow_worse": True}


@pytest.fixture(scope="module", autouse=True)
def small_and_fast() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "UNIT", UNIT)
        patch.setattr(sequence, "SCALES", SCALES)
        patch.setattr(planning, "POLL_S", 0.01)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("planned") / "model")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pictures(tmp_path_factory.mktemp("planned") / "images")


@pytest.fixture(scope="module")
def one_pass(model: Path, images: Path) -> Calibrated:
    return calibrate(model, images, **FEW)


def same(a: Calibrated, b: Calibrated) -> bool:
    return a.plan.to_json() == b.plan.to_json() and a.as_dict() == b.as_dict()


def run_shards(model: Path, images: Path, folder: Path, order: Any, **how: Any) -> None:
    """Every shard in this order, again and again until all rounds of all are done."""
    for _ in range(9):
        left = [calibrate_shard(model, images, folder, shard, **how) for shard in order]
        if left == [None] * len(left):
            return
    raise AssertionError(f"shards do not come to an end: {left}")


# --- one pass


def test_the_plan_fits_its_checkpoint_and_says_what_was_found(
    model: Path, images: Path, one_pass: Calibrated, tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text(one_pass.plan.to_json())
    reference = load_checkpoint(model).double()
    plan = load_plan(tmp_path / "plan.json", reference.config, fingerprint(model))
    assert plan == one_pass.plan and plan.mode == "threshold" and plan.thresholds is not None
    pixels = open_images(images, reference.config).all()
    ragged = reference(normalised(reference.config, pixels), Routing(thresholds=plan.thresholds))
    counts = np.array([trace.counts for trace in ragged.traces])
    facts = plan.calibration
    assert facts is not None and facts["images"] == COUNT and facts["unreadable"] == 0
    assert facts["keep_share"] == (counts.mean(axis=0) / 16).tolist()
    own = np.array(reference.config.capacity)
    assert (np.abs(counts.mean(axis=0) - own) <= 1 / COUNT).all()  # one token more or less, over all images
    answered, overflow = plan.dispatched(counts)
    assert overflow.mean() == facts["overflow"]
    again = np.array([bucket.macs for bucket in plan.buckets])[answered]
    assert facts["expected"] == facts["expected_macs"] >= again.mean()


def test_the_front_is_strict_json(one_pass: Calibrated) -> None:
    front = json.loads(json.dumps(one_pass.as_dict(), allow_nan=False))
    assert front["format"] == "morvit-pareto/1" and len(front["points"]) == 2 * len(SCALES)
    assert (
        front["chosen"]["kind"] == "threshold" and front["chosen"]["scale"] == 1.0 and front["unit"] == "MACs"
    )
    assert front["dense"] == one_pass.plan.buckets[-1].macs
    assert one_pass.chosen in one_pass.points


def test_labels_give_top1(model: Path, tmp_path: Path) -> None:
    found = calibrate(model, save_pictures(tmp_path / "labelled", labelled=True), **FEW)
    assert found.trained_top1 is not None and found.chosen.top1 is not None
    assert found.plan.calibration is not None and found.plan.calibration["top1"] == found.chosen.top1


def test_token_choice_has_a_plan_of_its_own(images: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", routing="token_choice")
    found = calibrate(model, images, mode="topk", buckets=2)
    assert found.plan.mode == "depth" and found.plan.thresholds is None
    assert {point.kind for point in found.points} == {"depth"} and found.chosen.agreement == 1.0
    (tmp_path / "plan.json").write_text(found.plan.to_json())
    load_plan(tmp_path / "plan.json", load_checkpoint(model).config, fingerprint(model))


def test_as_many_buckets_as_pay(model: Path, images: Path) -> None:
    plan = calibrate(model, images, limit=6, mode="threshold", allow_worse=True).plan
    assert 1 <= len(plan.buckets) <= 6


# --- shards


@pytest.mark.parametrize("order", [*permutations((1, 2)), (3, 1, 2), (2, 3, 1)], ids=str)
def test_shards_make_the_plan_of_one_pass(
    model: Path, images: Path, one_pass: Calibrated, tmp_path: Path, order: tuple[int, ...]
) -> None:
    run_shards(model, images, tmp_path / "stats", [Shard(i, len(order)) for i in order])
    assert same(merge_shards(model, tmp_path / "stats", **FEW), one_pass)


def test_a_subset_in_shards(model: Path, images: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"limit": 9, "seed": 3}
    run_shards(model, images, tmp_path / "stats", [Shard(1, 2), Shard(2, 2)], **how)
    merged = merge_shards(model, tmp_path / "stats", **FEW)
    assert same(merged, calibrate(model, images, **FEW, **how))
    assert not same(merged, calibrate(model, images, **FEW, limit=9, seed=4))


def test_more_shards_than_units(model: Path, images: Path, one_pass: Calibrated, tmp_path: Path) -> None:
    run_shards(model, images, tmp_path / "stats", [Shard(i, 6) for i in range(1, 7)])
    assert same(merge_shards(model, tmp_path / "stats", **FEW), one_pass)


def test_the_division_may_change_between_rounds(
    model: Path, images: Path, one_pass: Calibrated, tmp_path: Path
) -> None:
    for number in (1, 2):
        calibrate_shard(model, images, tmp_path / "stats", Shard(number, 2))
    (tmp_path / "stats" / "round02-shard2of2.npz").unlink()
    run_shards(model, images, tmp_path / "stats", [Shard(i, 3) for i in (1, 2, 3)])
    assert same(merge_shards(model, tmp_path / "stats", **FEW), one_pass)


def test_a_shard_says_what_it_waits_for(model: Path, images: Path, tmp_path: Path) -> None:
    for _ in range(2):
        waiting = calibrate_shard(model, images, tmp_path / "stats", Shard(2, 3))
        assert waiting == Waiting(1, 4, [Shard(1, 3), Shard(3, 3)])
    with pytest.raises(
        PlanError, match=r"round 1 is not complete: shards 1/3, 3/3 are missing; run `morvit-deploy"
    ):
        merge_shards(model, tmp_path / "stats")
    with pytest.raises(PlanError, match=r"round 1 is not complete: no shard has run"):
        merge_shards(model, tmp_path / "other")


def test_shards_wait_for_each_other(model: Path, images: Path, one_pass: Calibrated, tmp_path: Path) -> None:
    found: list[Waiting | None] = []

    def work(number: int) -> None:
        shard = Shard(number, 2)
        found.append(calibrate_shard(model, images, tmp_path / "stats", shard, wait_s=60))

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None, None]
    assert same(merge_shards(model, tmp_path / "stats", **FEW), one_pass)


def test_an_interrupted_round_is_counted_again(
    model: Path, images: Path, one_pass: Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done before stays; nothing of the round is left behind."""
    stats, shards = tmp_path / "stats", [Shard(1, 2), Shard(2, 2)]
    for shard in shards:
        calibrate_shard(model, images, stats, shard)
    before = {path.name: path.stat().st_mtime_ns for path in stats.iterdir()}
    with monkeypatch.context() as patch:
        looks = iter([gathering._look])

        def interrupted(*given: Any) -> Any:
            for look in looks:
                return look(*given)
            raise KeyboardInterrupt

        patch.setattr(gathering, "_look", interrupted)
        with pytest.raises(KeyboardInterrupt):
            calibrate_shard(model, images, stats, shards[0])
    assert {path.name: path.stat().st_mtime_ns for path in stats.iterdir()} == before
    run_shards(model, images, stats, shards)
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in stats.iterdir()}.items()
    assert same(merge_shards(model, stats, **FEW), one_pass)


@pytest.fixture(scope="module")
def counted(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The statistics of two shards, all rounds. Copy them before changing them."""
    folder = tmp_path_factory.mktemp("planned") / "stats"
    run_shards(model, images, folder, [Shard(1, 2), Shard(2, 2)])
    return folder


@pytest.mark.parametrize(
    "wish",
    [{"buckets": 1}, {"buckets": 3, "mode": "threshold"}, {"budget_macs": 1e6}, {"pick": 3}],
    ids=str,
)
def test_statistics_serve_any_wish(model: Path, images: Path, counted: Path, wish: dict[str, Any]) -> None:
    assert same(merge_shards(model, counted, **wish, **LET), calibrate(model, images, **wish, **LET))


def test_statistics_of_another_checkpoint_or_mode(counted: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"gathered for another checkpoint than .*other \(sha256 differs\)"):
        merge_shards(save_model(tmp_path / "other", seed=1), counted)
    with pytest.raises(PlanError, match="got --mode topk, expected --mode threshold"):
        merge_shards(model, counted, mode="topk")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"limit": 9}, "another run: choice of images .*, number of images 14 and 9; use"),
        ({"upscale": True}, "another run: choice of images"),
        ({"mode": "topk"}, "another run: mode threshold and topk"),
    ],
    ids=["limit", "upscale", "mode"],
)
def test_shards_of_another_run(model: Path, images: Path, counted: Path, how: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        calibrate_shard(model, images, counted, Shard(1, 2), **how)


def test_shards_of_different_runs(model: Path, images: Path, tmp_path: Path) -> None:
    calibrate_shard(model, images, tmp_path / "stats", Shard(1, 2))
    with pytest.raises(
        PlanError, match=r"shards of different runs: choice of images .*use a separate folder"
    ):
        calibrate_shard(model, images, tmp_path / "stats", Shard(2, 2), limit=13)


def test_shards_of_two_divisions(model: Path, images: Path, tmp_path: Path) -> None:
    calibrate_shard(model, images, tmp_path / "stats", Shard(1, 2))
    with pytest.raises(PlanError, match="round 1 has shards 1/2, this one is 1/3"):
        calibrate_shard(model, images, tmp_path / "stats", Shard(1, 3))


def test_a_round_counted_under_older_thresholds(
    model: Path, images: Path, counted: Path, tmp_path: Path
) -> None:
    """A shard of the first round was counted anew, over other pixels."""
    stats, changed = tmp_path / "stats", tmp_path / "images"
    shutil.copytree(counted, stats)
    shutil.copytree(images, changed)
    shutil.copy(changed / "000.png", changed / "001.png")
    for path in stats.glob("round0*-shard1of2.npz"):
        path.unlink()
    with pytest.raises(PlanError, match="round 2: shards 1/2 and 2/2 used different thresholds"):
        calibrate_shard(model, changed, stats, Shard(1, 2))


def test_a_torn_file(model: Path, images: Path, counted: Path, tmp_path: Path) -> None:
    stats = Path(shutil.copytree(counted, tmp_path / "stats"))
    torn = stats / "round02-shard1of2.npz"
    torn.write_bytes(torn.read_bytes()[:-200])
    for ask in (
        lambda: merge_shards(model, stats), lambda: calibrate_shard(model, images, stats, Shard(1, 2)),
    ):  # fmt: skip
        with pytest.raises(
            PlanError, match=r"round02-shard1of2.npz is not a complete .*remove it and run its shard"
        ):
            ask()
    torn.unlink()
    assert calibrate_shard(model, images, stats, Shard(1, 2)) is None
    merge_shards(model, stats, **FEW)


# --- images that cannot be used


def test_unreadable_images_are_left_out(model: Path, tmp_path: Path) -> None:
    images = save_pictures(tmp_path / "images")
    names = [break_picture(images, number) for number in (1, 6)]
    found = calibrate(model, images, **FEW, max_bad=2)
    assert [name for name, _ in found.bad] == names
    assert found.plan.calibration is not None and found.plan.calibration["unreadable"] == 2
    assert found.plan.calibration["images"] == COUNT - 2
    assert [reason.split()[0] for reason in found.as_dict()["unreadable"]] == names
    run_shards(model, images, tmp_path / "stats", [Shard(i, 3) for i in (1, 2, 3)], max_bad=2)
    assert same(merge_shards(model, tmp_path / "stats", **FEW, max_bad=2), found)
    with pytest.raises(ImageError, match=r"unreadable images: 2 so far, --max-bad allows 1(.|\n)*001.png"):
        merge_shards(model, tmp_path / "stats", **FEW, max_bad=1)


def test_unreadable_images_of_all_shards_count(model: Path, tmp_path: Path) -> None:
    """Each shard has one, which is allowed; together they have two."""
    images = save_pictures(tmp_path / "images")
    for number in (0, UNIT):
        break_picture(images, number)
    assert isinstance(calibrate_shard(model, images, tmp_path / "stats", Shard(1, 2), max_bad=1), Waiting)
    with pytest.raises(ImageError, match=r"unreadable images: 2 so far(.|\n)*000.png(.|\n)*004.png"):
        calibrate_shard(model, images, tmp_path / "stats", Shard(2, 2), max_bad=1)
    run_shards(model, images, tmp_path / "stats", [Shard(1, 2), Shard(2, 2)], max_bad=2)  # nothing is lost


@pytest.mark.parametrize("mode", ["threshold", "topk"])
def test_no_image_can_be_read(model: Path, tmp_path: Path, mode: str) -> None:
    images = save_pictures(tmp_path / "images", 3)
    for number in range(3):
        break_picture(images, number)
    with pytest.raises(ImageError, match="none of the 3 images could be read"):
        calibrate(model, images, mode=mode, max_bad=3)


def test_images_that_change_between_rounds(model: Path, tmp_path: Path) -> None:
    images, stats = save_pictures(tmp_path / "images"), tmp_path / "stats"
    shards = [Shard(1, 2), Shard(2, 2)]
    for shard in shards:
        calibrate_shard(model, images, stats, shard)
    shutil.copy(images / "000.png", images / "001.png")
    with pytest.raises(ImageError, match=r"images changed between rounds 1 and 2 .* empty --stats folder"):
        run_shards(model, images, stats, shards)


def test_no_images_at_all(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no images"):
        calibrate(model, tmp_path / "empty")


# --- routing that leaves nothing to calibrate


@pytest.mark.parametrize("lift", [0.0, 5e-4, -5e-4])
def test_routers_that_answer_the_same_to_everything(images: Path, tmp_path: Path, lift: float) -> None:
    """Equal logits stay together: a threshold keeps all of them or none, and that is said with the step."""
    model = load_checkpoint(save_model(tmp_path / "model", dead=True))
    for router in model.all_routers():
        for layer in router.linears():
            assert layer.bias is not None
            layer.bias += lift  # to another place in its bin
    save_checkpoint(model, tmp_path / "lifted")
    found = calibrate(tmp_path / "lifted", images, **FEW)
    assert found.remarks
    assert all("router's logits are nearly equal" in remark for remark in found.remarks)
    assert found.remarks[0].startswith("step 1: the threshold ")
    assert plan_problems(found.plan, model.config) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"routing": "none"}, "routing 'none': .* nothing to calibrate"),
        ({"routing": "expert_choice_flat"}, "routing 'expert_choice_flat': .* may run a later one"),
        ({"capacity": [16, 16, 16]}, r"capacity \[16, 16, 16\]: no token leaves, so there is nothing"),
    ],
    ids=["none", "tokens come back", "no token leaves"],
)
def test_nothing_to_calibrate(images: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    model = save_model(tmp_path / "model", **changes)
    with pytest.raises(PlanError, match=message):
        calibrate(model, images)
    with pytest.raises(PlanError, match=message):
        calibrate_shard(model, images, tmp_path / "stats", Shard())


# --- the result


def test_it_is_saved_as_the_command_line_saves_it(one_pass: Calibrated, model: Path, tmp_path: Path) -> None:
    files = one_pass.save(tmp_path / "plan.json")
    assert [path.name for path in files] == ["plan.json", "plan.pareto.json", "plan.pareto.png"]
    assert load_plan(files.plan, load_checkpoint(model).config) == one_pass.plan
    assert json.loads(files.pareto.read_text()) == json.loads(json.dumps(one_pass.as_dict()))
    assert files.picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputError, match=r"plan\.json exists"):
        one_pass.save(tmp_path / "plan.json")
    assert one_pass.save(tmp_path / "plan.json", force=True) == files


def test_nothing_is_saved_where_one_file_cannot_be(one_pass: Calibrated, tmp_path: Path) -> None:
    (tmp_path / "plan.pareto.png").mkdir()
    with pytest.raises(OutputError, match=r"plan\.pareto\.png is a folder"):
        one_pass.save(tmp_path / "plan.json", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.pareto.png"]


def test_it_shows_itself(one_pass: Calibrated) -> None:
    assert repr(one_pass).startswith("Calibrated(Plan('threshold', 2 buckets: b0 ")
    assert "\n" not in repr(one_pass) and len(repr(one_pass)) < 250
    page = one_pass._repr_html_()
    assert page.count("<table>") == 4 and "data:image/png;base64," in page


def test_a_shard_is_named_as_on_the_command_line(model: Path, images: Path, tmp_path: Path) -> None:
    waiting = calibrate_shard(model, images, tmp_path / "stats", "1/2")
    assert waiting is not None and waiting.missing == [Shard(2, 2)]
    with pytest.raises(PlanError):
        calibrate_shard(model, images, tmp_path / "stats", "3/2")


# --- wishes


def test_budgets(model: Path, images: Path, counted: Path, one_pass: Calibrated) -> None:
    own = [point for point in one_pass.points if point.kind == "threshold"]
    limit = sorted(point.expected for point in own)[1]
    found = merge_shards(model, counted, mode="threshold", buckets=2, budget_macs=limit, **LET)
    assert found.chosen.expected_macs <= limit
    assert found.chosen.accuracy == max(point.accuracy for point in own if point.expected_macs <= limit)
    assert found.plan.calibration is not None and found.plan.calibration["scale"] == found.chosen.scale
    cheapest = min(own, key=lambda point: point.expected)
    with pytest.raises(
        PlanError, match=rf"no threshold plan .*\({cheapest.scale:g} × the trained capacities\)"
    ):
        merge_shards(model, counted, mode="threshold", buckets=2, budget_macs=0.9 * cheapest.expected)


def test_milliseconds(model: Path, counted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measure(checkpoint: Path, thresholds: Any, **_: Any) -> MeasuredCost:
        asked.append(thresholds)
        return MeasuredCost((0, 16), (1.0, 17.0), 0.5)

    monkeypatch.setattr("morvit_deploy.planning.schedule_costs.measure_costs", measure)
    plain = merge_shards(model, counted, cost="measured", **FEW)
    assert plain.unit == "ms" and plain.dense == 17.5 and asked == [plain.plan.thresholds]
    assert plain.plan.calibration is not None and plain.plan.calibration["cost"] == "measured"
    assert plain.chosen.expected < 17.5 < plain.chosen.expected_macs
    found = merge_shards(model, counted, mode="threshold", budget_ms=8, buckets=2, **LET)
    assert found.unit == "ms" and found.chosen.expected <= 8
    with pytest.raises(
        PlanError, match=r"no threshold plan is within the budget of 0.1 ms .* nearest costs [\d.]+ ms"
    ):
        merge_shards(model, counted, mode="threshold", budget_ms=0.1, buckets=2)


def test_top_k_within_a_budget_is_exported(model: Path, images: Path, tmp_path: Path) -> None:
    from morvit_deploy import export, open_bundle

    own = calibrate(model, images, mode="topk", scale=1.0)
    assert own.plan.buckets[0].capacity == (12, 6, 3)
    found = calibrate(model, images, mode="topk", budget_macs=own.plan.buckets[0].macs - 1, **LET)
    assert found.plan.mode == "topk" and found.plan.buckets[0].capacity < (12, 6, 3)
    assert found.plan.buckets[0].macs == found.chosen.expected_macs
    (tmp_path / "plan.json").write_text(found.plan.to_json())
    export(model, tmp_path / "bundle", plan=tmp_path / "plan.json", allow_worse=True)
    with open_bundle(tmp_path / "bundle") as runner:
        pixels = open_images(images, load_checkpoint(model).config).all()[:1]
        assert runner.run(pixels)["logits"].shape == (1, 10)


def test_threshold_statistics_hold_the_top_k_front_too(
    one_pass: Calibrated, model: Path, images: Path
) -> None:
    topk = calibrate(model, images, mode="topk", **LET)
    assert topk.points == [point for point in one_pass.points if point.kind == "topk"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "depth"}, "mode: got 'depth', expected threshold or topk"),
        ({"cost": "joules"}, "cost: got 'joules', expected macs or measured"),
        ({"buckets": 0}, "buckets: got 0, expected at least 1"),
        ({"budget_ms": 0.0}, "budget_ms: got 0.0, expected a number above 0"),
        ({"budget_macs": float("nan")}, "budget_macs: got nan, expected"),
        ({"budget_macs": float("inf")}, "budget_macs: got inf, expected"),
        ({"budget_macs": 1.0, "budget_ms": 1.0}, "got budget_macs and budget_ms"),
        ({"pick": 1, "scale": 1.0}, "got pick and scale, expected one of them"),
        ({"budget_ms": 1.0, "scale": 1.0}, "got budget_ms and scale"),
        ({"scale": -0.5}, "scale: got -0.5, expected a number above 0"),
        ({"min_agreement": 99.0}, "min_agreement: got 99.0, expected a share from 0 to 1"),
        ({"min_agreement": float("nan")}, "min_agreement: got nan, expected a share"),
    ],
    ids=str,
)
def test_what_cannot_be_wished_for(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Wish(**fields)


def test_errors_are_ours(model: Path, tmp_path: Path) -> None:
    for given in (tmp_path / "gone", tmp_path):
        with pytest.raises(MorvitError):
            calibrate(given, tmp_path)
        with pytest.raises(MorvitError):
            merge_shards(given, tmp_path)
    with pytest.raises(ImageError):
        calibrate(model, tmp_path / "gone")
