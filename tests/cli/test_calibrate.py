"""`calibrate`: what it writes, what it prints, and what it refuses before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calibration_setup import COUNT, break_picture, save_model, save_pictures
from commands import answer, refused, run
from PIL import Image

from morvit_deploy.calibration.routing import sequence
from morvit_deploy.errors import OutputError
from morvit_deploy.model.checkpoint import fingerprint, load_checkpoint
from morvit_deploy.model.plan import load_plan

# thresholds at the trained capacities, whatever they do to a random model
OWN = ("--mode", "threshold", "--scale", 1, "--allow-worse")
NAMES = ["plan.json", "plan.pareto.json", "plan.pareto.png"]


@pytest.fixture(autouse=True)
def two_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "SCALES", (0.5, 1.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("calibrate") / "model")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pictures(tmp_path_factory.mktemp("calibrate") / "images", labelled=True)


def strict(text: str) -> Any:
    """JSON without NaN or Infinity, which are not JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- what it does


def test_a_plan_and_its_front(model: Path, images: Path, inside: Path) -> None:
    result = run("calibrate", model, "--images", images, "--buckets", 2, *OWN)
    assert result.exit_code == 0, result.output
    assert written(inside) == NAMES
    plan = load_plan("plan.json", load_checkpoint(model).config, fingerprint(model))
    assert plan.mode == "threshold"
    front = strict(Path("plan.pareto.json").read_text())
    assert front["format"] == "morvit-pareto/1" and len(front["points"]) == 4
    with Image.open("plan.pareto.png") as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 500
    for phrase in ("thresholds", "Accuracy/cost trade-off", "plan.pareto.png", "trained model", "►"):
        assert phrase in result.stdout


def test_json_is_one_document(model: Path, images: Path, tmp_path: Path) -> None:
    found = answer("calibrate", model, "--images", images, "--buckets", 2, "-o", tmp_path / "new" / "my.json")
    assert found["plan"] == strict((tmp_path / "new" / "my.json").read_text())
    assert found["pareto"] == strict((tmp_path / "new" / "my.pareto.json").read_text())
    assert [Path(file).name for file in found["files"]] == ["my.json", "my.pareto.json", "my.pareto.png"]


def test_top_k(model: Path, images: Path, inside: Path) -> None:
    found = answer("calibrate", model, "--images", images, "--mode", "topk", "--scale", 1)
    assert found["plan"]["mode"] == "topk" and found["plan"]["buckets"][0]["capacity"] == [12, 6, 3]


def test_token_choice_has_its_own_mode(images: Path, tmp_path: Path, inside: Path) -> None:
    model = save_model(tmp_path / "token", routing="token_choice")
    result = run("calibrate", model, "--images", images, "--mode", "topk", "--buckets", 2)
    assert result.exit_code == 0, result.output
    assert "token_choice chooses depths itself; --mode topk changes nothing" in result.stderr
    assert strict(Path("plan.json").read_text())["mode"] == "depth"


def test_shards_and_merge(model: Path, images: Path, inside: Path) -> None:
    one = run("calibrate", model, "--images", images, "--buckets", 2)
    shard = ("calibrate", model, "--images", images, "--stats", "stats", "--shard")
    first = run(*shard, "1/2")
    assert first.exit_code == 0 and first.stdout == ""
    assert "shard 1/2: round 1 of 4 is done; the next round needs shards 2/2 too" in " ".join(
        first.stderr.split()
    )
    told = answer(*shard, "1/2")
    assert told == {"shard": "1/2", "done": False, "round": 1, "rounds": 4, "missing": ["2/2"]}
    for _ in range(4):
        found = [answer(*shard, f"{i}/2") for i in (2, 1)]
    assert found == [{"shard": f"{i}/2", "done": True, "missing": []} for i in (2, 1)]
    assert (
        "all rounds are done; once every shard is done, join them with --merge" in run(*shard, "1/2").stderr
    )
    merged = run("calibrate", model, "--stats", "stats", "--merge", "--buckets", 2, "-o", "merged.json")
    assert one.exit_code == merged.exit_code == 0
    assert Path("merged.json").read_bytes() == Path("plan.json").read_bytes()
    assert Path("merged.pareto.json").read_bytes() == Path("plan.pareto.json").read_bytes()


def test_the_current_folder_may_be_the_checkpoint(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    assert answer("calibrate", "--images", images, "--limit", 5, "--buckets", 1, "-o", tmp_path / "p.json")


# --- what it recommends


def test_the_conclusion_comes_first_and_top_k_is_a_candidate(model: Path, images: Path, inside: Path) -> None:
    result = run("calibrate", model, "--images", images, "--buckets", 2)
    assert result.exit_code == 0, result.output
    front = strict(Path("plan.pareto.json").read_text())
    first = " ".join(result.stdout.split("Pareto front:")[0].split())
    assert first == front["conclusion"] and first.startswith("Recommended: ")
    assert "One image is 7.14 %: calibrate with hundreds" in first
    best = next(point for point in front["points"] if point["row"] == front["recommended"]["row"])
    assert best["keeps"] and not best["dominated"]
    assert front["chosen"] == front["recommended"]
    assert front["floor"]["images"] == COUNT and len(front["floor"]["interval"]) == 2
    assert all(
        point["dominated"] or not point["keeps"]
        for point in front["points"]
        if point["expected"] < best["expected"]
    )


def test_a_row_of_the_table_is_taken(model: Path, images: Path, inside: Path) -> None:
    found = answer("calibrate", model, "--images", images, "--buckets", 2, "--pick", 4, "--allow-worse")
    chosen = found["pareto"]["chosen"]
    assert chosen["row"] == 4 and found["plan"]["calibration"]["scale"] == chosen["scale"]
    assert "This plan is row 4, " in found["pareto"]["conclusion"]
    told = refused("calibrate", model, "--images", images, "--pick", 5, "-o", "other.json")
    assert "pick: got row 5, expected 1 to 4 of the table of points" in told
    told = refused("calibrate", model, "--images", images, "--scale", 1, "-o", "other.json")
    assert "which top-k and threshold points have; give mode too, or pick a row" in told


def test_buckets_of_a_top_k_plan_are_no_silent_option(model: Path, images: Path, inside: Path) -> None:
    result = run("calibrate", model, "--images", images, "--buckets", 3, "--mode", "topk", "--scale", 1)
    assert "note: a top-k plan has one bucket; --buckets 3 is for the threshold rows" in result.stderr


def test_a_ruinous_plan_is_not_written(tmp_path: Path, inside: Path) -> None:
    """Routers that decide nothing: a threshold keeps all tokens or none, and most classes change."""
    model, images = save_model(tmp_path / "model", seed=1, dead=True), save_pictures(tmp_path / "images")
    command = ("calibrate", model, "--images", images, "--mode", "threshold")
    refusal = run(*command, "--scale", 0.5)
    assert refusal.exit_code == 1 and written(inside) == []
    told = " ".join(refusal.stderr.split())
    assert "the plan ruins the model: top-1 agreement with the trained model is 28.57 %" in told
    assert "Recommended instead: top-k at 0.5 ×" in told and "or accept it with --allow-worse" in told
    result = run(*command, "--scale", 0.5, "--allow-worse")
    assert result.exit_code == 0 and written(inside) == NAMES
    assert "warning: let through by --allow-worse: top-1 agreement" in result.stderr


# --- what it says on the way


def test_unreadable_images_are_listed(model: Path, tmp_path: Path, inside: Path) -> None:
    images = save_pictures(tmp_path / "images")
    names = [break_picture(images, number) for number in (3, 8)]
    told = refused("calibrate", model, "--images", images, "--max-bad", 1)
    assert "unreadable images: 2 so far, --max-bad allows 1" in told and all(name in told for name in names)
    assert written(inside) == []
    result = run("calibrate", model, "--images", images, "--max-bad", 2, "--buckets", 1)
    assert result.exit_code == 0
    for name in names:
        assert f"warning: not read: {name} is not an image" in result.stderr
    assert f"{COUNT - 2}, 2 unreadable" in result.stdout


def test_thresholds_that_decide_nothing(images: Path, tmp_path: Path, inside: Path) -> None:
    model = save_model(tmp_path / "dead", dead=True)
    result = run("calibrate", model, "--images", images, "--buckets", 1, *OWN)
    assert result.exit_code == 0
    assert "warning: step 1: the threshold" in result.stderr
    assert strict(Path("plan.pareto.json").read_text())["remarks"]


def test_a_budget_that_no_plan_meets(model: Path, images: Path, inside: Path) -> None:
    budget = ("--mode", "threshold", "--buckets", 2, "--budget-macs", "1e3")
    told = refused("calibrate", model, "--images", images, *budget)
    assert "no threshold plan is within the budget of 1 kMACs per image; the nearest costs" in told
    assert "(0.5 × the trained capacities)" in told
    assert written(inside) == []


# --- what it refuses


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no --images given"),
        (["--stats", "s", "--images", "i"], "--stats goes with --shard or --merge"),
        (["--images", "i", "--shard", "1/2"], "--shard and --merge need --stats"),
        (["--merge"], "--shard and --merge need --stats"),
        (["--stats", "s", "--merge", "--images", "i"], "--merge joins what shards have counted"),
        (["--stats", "s", "--merge", "--shard", "1/2"], "--merge joins what shards have counted"),
        (["--stats", "s", "--merge", "--ray", "local"], "--merge joins what shards have counted"),
        (["--images", "i", "--stats", "s", "--shard", "1/2", "--ray", "local"], "--shard runs one part here"),
        (
            ["--stats", "s", "--merge", "--limit", "5", "--upscale"],
            "--limit, --upscale says what shards count",
        ),
        (["--stats", "s", "--merge", "--wait", "5"], "--wait is for --shard"),
        (["--images", "i", "--wait", "5"], "--wait is for --shard"),
        (
            ["--images", "i", "--stats", "s", "--shard", "1/2", "--buckets", "3", "--cost", "measured"],
            "--buckets, --cost says how the plan is made",
        ),
        (
            ["--images", "i", "--stats", "s", "--shard", "1/2", "--budget-ms", "3"],
            "--budget-ms says how the plan",
        ),
        (
            [
                "--images",
                "i",
                "--stats",
                "s",
                "--shard",
                "1/2",
                "--pick",
                "3",
                "--scale",
                "1",
                "--allow-worse",
            ],
            "--pick, --scale, --allow-worse says how the plan",
        ),
        (["--images", "i", "--pick", "3", "--budget-macs", "3"], "got budget_macs and pick, expected one"),
        (["--images", "i", "--pick", "0"], "--pick: got 0, expected at least 1"),
        (["--images", "i", "--min-agreement", "99"], "--min-agreement: got 99.0, expected at most 1"),
        (["--images", "i", "--stats", "s", "--shard", "3/2"], "shard: got 3/2, expected i/n with 1 ≤ i ≤ n"),
        (["--images", "i", "--stats", "s", "--shard", "half"], "shard: got 'half', expected i/n, as in 2/8"),
        (["--images", "i", "--budget-ms", "3", "--budget-macs", "3"], "got budget_macs and budget_ms"),
        (["--images", "i", "--budget-ms", "-3"], "--budget-ms: got -3.0, expected a number above 0"),
        (["--images", "i", "--buckets", "0"], "--buckets: got 0, expected at least 1"),
        (["--images", "i", "--mode", "depth"], "--mode: got 'depth', expected one of threshold, topk"),
        (["--images", "i"], "i is not a folder of images"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_go_together(model: Path, inside: Path, words: list[str], message: str) -> None:
    assert message in refused("calibrate", model, *words)
    assert written(inside) == []


def test_a_checkpoint_is_needed(images: Path, inside: Path) -> None:
    assert "no checkpoint given" in refused("calibrate", "--images", images)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_there_is_not_overwritten(model: Path, images: Path, inside: Path, name: str) -> None:
    Path(name).write_text("mine")
    command = ("calibrate", model, "--images", images, "--buckets", 1, "--limit", 4)
    assert f"{name} exists; pass --force to replace it" in refused(*command)
    assert f"{name} holds something else" in refused(*command, "--force")
    assert Path(name).read_text() == "mine" and written(inside) == [name]
    Path(name).write_bytes(b"")  # an empty file is nobody's data
    assert run(*command, "--force").exit_code == 0
    assert written(inside) == NAMES and Path(name).read_bytes()


def test_force_replaces_an_earlier_plan(model: Path, images: Path, inside: Path) -> None:
    command = ("calibrate", model, "--images", images, "--buckets", 1, "--limit", 4)
    assert [run(*command, *more).exit_code for more in ([], ["--force"])] == [0, 0]
    assert written(inside) == NAMES


def test_a_folder_is_no_plan_file(model: Path, images: Path, inside: Path) -> None:
    assert "-o . is a folder, expected a file name" in refused(
        "calibrate", model, "--images", images, "-o", "."
    )
    Path("plan.pareto.png").mkdir()
    assert "plan.pareto.png is a folder" in refused("calibrate", model, "--images", images, "--force")


@pytest.mark.parametrize("last", [1, 2, 3])
def test_all_files_or_none(
    model: Path, images: Path, inside: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    from morvit_deploy.files import publishing

    place, paths = publishing._place, []

    def full_disk(new: Path, final: Path) -> None:
        paths.append(final)
        if len(paths) == last:
            raise OutputError(f"cannot write {final}: No space left on device; choose another place")
        place(new, final)

    monkeypatch.setattr(publishing, "_place", full_disk)
    told = refused("calibrate", model, "--images", images, "--buckets", 1, "--limit", 4)
    assert "No space left" in told and written(inside) == []


def test_a_picture_that_cannot_be_drawn_leaves_nothing(
    model: Path, images: Path, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> bytes:
        raise OutputError("no font")

    monkeypatch.setattr("morvit_deploy.planning.front.draw", fail)
    assert "no font" in refused("calibrate", model, "--images", images, "--buckets", 1, "--limit", 4)
    assert written(inside) == []
