"""`inspect`: the tables, the numbers behind them, the pictures, the warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calibration_setup import save_pictures
from config_matrix import DENSE, EXPERT, FLAT, OPTIONS, REDUCING, TOKEN, named
from PIL import Image
from tiny_models import make_config, own_bucket, random_model
from typer.testing import CliRunner, Result

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.pixels import normalise, synthetic_images
from morvit_deploy.cli import app
from morvit_deploy.inspecting.anatomy import depths_of, mac_counts, stages_of
from morvit_deploy.model.checkpoint import init_model, load_checkpoint, save_checkpoint
from morvit_deploy.model.macs import dense_macs, schedule_macs
from morvit_deploy.model.presets import preset
from morvit_deploy.model.routings.counting import GraphShape, block_macs, cls_macs
from morvit_deploy.model.trace import Routing

ROUTED = [
    changes for changes in (*REDUCING, *EXPERT, *FLAT, *OPTIONS) if changes.get("routing") != "token_choice"
]


def _inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def _json(*arguments: str | Path) -> dict[str, Any]:
    result = _inspect(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def _save(folder: Path, **changes: Any) -> Path:
    save_checkpoint(random_model(make_config(**changes)), folder / "model")
    return folder / "model"


@pytest.mark.parametrize("changes", ROUTED, ids=named)
def test_stages_add_up_to_the_static_graph(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    assert sum(stage.macs for stage in stages_of(config)) == mac_counts(config).static
    assert all(stage.macs > 0 for stage in stages_of(config))


def test_figures_of_the_papers_model() -> None:
    config = preset("morvit_b16")
    macs = mac_counts(config)
    assert macs.static == 2_668_280_064
    assert macs.gathered == pytest.approx(4.10e9, rel=1e-3)
    assert macs.masked == dense_macs(config)
    assert macs.plain == mac_counts(preset("vit_b16")).plain == pytest.approx(17.56e9, rel=1e-3)


@pytest.mark.parametrize("changes", TOKEN, ids=named)
def test_deeper_tokens_cost_more(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    levels = depths_of(config)
    assert [level.depth for level in levels] == list(range(1, config.num_layers + 1))
    macs = [level.macs for level in levels]
    assert macs == sorted(macs) and macs[0] < macs[-1]  # in the last layer CLS alone may be read
    assert macs[-1] == schedule_macs(config, own_bucket(config).capacity) == mac_counts(config).static


def test_depths_of_edge_recvit() -> None:
    """Half of the layers is a little more than half of the work: the router and the frozen keys come on top."""
    config = preset("edge_recvit_b16")
    assert mac_counts(config).masked == dense_macs(config) == 18_264_631_296
    full, pads = block_macs(config, 197, 197, 197), block_macs(config, 2, 2, 197)
    keys, last = 195 * 2 * 768**2, cls_macs(config, GraphShape(()), 197, 197)
    router, ends = 197 * (768 * 1536 + 1536 * 1536 + 1536 * 12), 196 * 768 * 768 + 768 * 1000
    halfway = depths_of(config)[5].macs
    assert halfway == 6 * full + 5 * pads + keys + last + router + ends
    assert 0.54 < halfway / dense_macs(config) < 0.56


def test_facts_without_images(tiny_checkpoint: Path) -> None:
    found = _json(tiny_checkpoint)
    model = random_model(make_config())
    assert found["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert {tie["block"]: tie["applications"] for tie in found["ties"]} == {
        "first": 1,
        "cycle.0": 3,
        "last": 1,
    }
    block = sum(p.numel() for p in model.cycle[0].parameters())
    routers = found["parameters"]["routers"]
    assert found["untied_parameters"] == found["parameters"]["total"] - routers + 2 * block
    assert found["survey"] is None
    assert found["folder"] is None


def test_tables_are_readable(tiny_checkpoint: Path) -> None:
    text = _inspect(tiny_checkpoint).stdout
    for phrase in (
        "12, 6, 3 of 16 patch tokens continue",
        "first + 1 block × 3 + last = 5 layers",
        "×3",
        "h + g·f(h)",
    ):
        assert phrase in text


def test_token_choice_says_what_each_depth_costs(tmp_path: Path) -> None:
    folder = _save(tmp_path, routing="token_choice")
    found = _json(folder)
    assert [level["depth"] for level in found["by_depth"]] == [1, 2, 3, 4, 5]
    assert found["by_depth"][-1]["macs"] == found["macs"]["static"]
    text = _inspect(folder).stdout
    assert "MACs by mean depth" in text and "tokens that leave are masked" in text
    assert "MACs by mean depth" not in _inspect(_save(tmp_path / "expert")).stdout


def test_current_folder_when_it_holds_a_checkpoint(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_checkpoint)
    assert _json()["config"]["embed_dim"] == 16


def test_healthy_routing_is_drawn_without_a_warning(tmp_path: Path, image_files: list[Path]) -> None:
    out = tmp_path / "out"
    result = _inspect(_save(tmp_path), "--images", image_files[0].parent, "-o", out, "--draw", "2")
    assert result.exit_code == 0, result.stderr
    assert "degenerated" not in result.stderr
    assert " healthy" not in result.stdout, "what was tested is said instead"
    assert "passed: uniform, blind, undecided; not judged: random" in " ".join(result.stdout.split())
    expected = ["0-depth.png", "1-depth.png", "inspection.json", "overview.png"]
    assert sorted(file.name for file in out.iterdir()) == expected
    with Image.open(out / "overview.png") as picture:
        picture.verify()
    survey = json.loads((out / "inspection.json").read_text())["survey"]
    assert survey["mean_tokens"] == [12, 6, 3]
    assert survey["mean_depth"] == pytest.approx(21 / 16)
    assert survey["histogram"] == pytest.approx([4 / 16, 6 / 16, 3 / 16, 3 / 16])
    assert survey["top1"] is None
    assert survey["adaptivity"]["outcome"] == "too few images", "a handful"
    assert survey["adaptivity"]["sentence"] in " ".join(result.stdout.split())


def test_degenerate_routing_is_warned_about(tmp_path: Path, image_files: list[Path]) -> None:
    model = random_model(make_config())
    for router in model.routers:
        for parameter in router.parameters():
            parameter.zero_()  # every tie goes to the lowest index: the same map for every image
    save_checkpoint(model, tmp_path / "model")
    result = _inspect(tmp_path / "model", "--images", image_files[0].parent, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0
    judgement = json.loads(result.stdout)["survey"]["judgement"]
    assert {reason["kind"] for reason in judgement["reasons"]} == {"blind", "undecided"}
    assert "warning: routing has degenerated" in result.stderr


def _routers_of_chance(folder: Path, images: Path) -> Path:
    """Label pictures with what a model makes of them, and give its blocks the routers of another model."""
    model, other = random_model(make_config(), seed=1), random_model(make_config(), seed=5)
    save_checkpoint(model, folder / "model")
    seen = _json(folder / "model", "--images", images, "-o", folder / "o")["survey"]["images"]
    model.routers.load_state_dict(other.routers.state_dict())
    save_checkpoint(model, folder / "chance")
    rows = [f"{one['image']},{one['predicted']}" for one in seen]
    (images / "labels.csv").write_text("\n".join(["file,label", *rows]))
    return folder / "chance"


def test_routers_no_better_than_chance_are_no_longer_healthy(tmp_path: Path) -> None:
    """Their depths vary, follow the image and are decided; only the classes tell that the choice is random."""
    images = save_pictures(tmp_path / "images", 80)
    model = _routers_of_chance(tmp_path, images)
    command = (model, "--images", images, "-o", tmp_path / "out", "--draw", "0")
    survey = _json(*command)["survey"]
    baseline, outcomes = survey["baseline"], {c["kind"]: c["outcome"] for c in survey["judgement"]["checks"]}
    assert baseline["interval"][0] <= 0 and baseline["gain"] == pytest.approx(
        survey["top1"] - baseline["top1"]
    )
    assert outcomes["random"] == "FAILED" and survey["judgement"]["degenerate"]
    result = _inspect(*command, "--force", "--fail-on-degenerate")
    assert result.exit_code == 1 and "error: routing has degenerated\n  - " in result.stderr
    assert "choose no better than chance" in result.stderr and "Routing checks" in result.stdout


def test_better_than_chance_passes_in_ci(tmp_path: Path) -> None:
    """Labels are what the model itself answers: 100 % learned, less with random tokens."""
    images = save_pictures(tmp_path / "images", 40)
    _routers_of_chance(tmp_path, images)
    command = (tmp_path / "model", "--images", images, "-o", tmp_path / "out", "--draw", "0")
    result = _inspect(*command, "--fail-on-degenerate")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "passed: uniform, blind, undecided, random" in words
    assert "Counts vary, depth matters: adaptive routing can save up to " in words
    assert "one bucket for all images; `calibrate` compares it with top-k." in words


@pytest.mark.parametrize(
    "changes", [{}, {"routing": "token_choice"}, {"routing": "expert_choice_flat"}], ids=named
)
def test_random_selection_runs_as_many_tokens(changes: dict[str, Any]) -> None:
    model = random_model(make_config(**changes))
    images = torch.from_numpy(normalise(synthetic_images(3, 32), model.config.preprocess))
    learned = model(images)
    shuffled = [
        model(images, Routing(capacity=model.config.capacity, shuffle=torch.Generator().manual_seed(seed)))
        for seed in (0, 0, 1)
    ]
    for outcome in shuffled:
        assert [trace.counts for trace in outcome.traces] == [trace.counts for trace in learned.traces]
    assert torch.equal(shuffled[0].depth, shuffled[1].depth)
    assert not torch.equal(shuffled[0].depth, shuffled[2].depth)
    assert not torch.equal(shuffled[0].depth, learned.depth)


def test_degenerate_routing_fails_in_ci(tmp_path: Path, image_files: list[Path]) -> None:
    save_checkpoint(init_model(make_config()), tmp_path / "model")
    command = (tmp_path / "model", "--images", image_files[0].parent, "-o", tmp_path / "out", "--draw", "0")
    result = _inspect(*command, "--fail-on-degenerate", "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["survey"]["judgement"]["degenerate"]
    assert "error: routing has degenerated" in result.stderr and "warning:" not in result.stderr


def test_what_cannot_be_judged_does_not_pass_in_ci(tmp_path: Path, image_files: list[Path]) -> None:
    model, images = _save(tmp_path), image_files[0].parent
    few = _inspect(model, "--images", images, "--limit", "2", "-o", tmp_path / "out", "--fail-on-degenerate")
    assert few.exit_code == 1
    assert "cannot be judged: got 2 different images, expected at least 4" in " ".join(few.stderr.split())
    assert "give --images DIR" in _inspect(model, "--fail-on-degenerate").stderr
    dense = _save(tmp_path / "dense", routing="none")
    told = _inspect(dense, "--images", images, "--fail-on-degenerate")
    assert told.exit_code == 2 and "has no routers to judge" in told.stderr


def test_random_initial_weights_are_undecided(tmp_path: Path, image_files: list[Path]) -> None:
    save_checkpoint(init_model(make_config()), tmp_path / "model")
    result = _inspect(
        tmp_path / "model", "--images", image_files[0].parent, "-o", tmp_path / "out", "--draw", "0"
    )
    assert "undecided" in result.stderr


def test_copies_of_one_picture_are_one_image(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    for number in range(6):
        Image.effect_mandelbrot((48, 48), (-2, -1.5, 1, 1.5), 60).convert("RGB").save(
            folder / f"{number}.png"
        )
    survey = _json(_save(tmp_path), "--images", folder, "-o", tmp_path / "out")["survey"]
    assert survey["judgement"]["images"] == 1
    assert survey["judgement"]["image_share"] is None


def test_flat_routing_is_counted_by_decisions(tmp_path: Path, image_files: list[Path]) -> None:
    """Depths do not tell who ran which step; the spread of router logits is that of the patches."""
    model = _save(tmp_path, routing="expert_choice_flat")
    folder = image_files[0].parent
    found = _json(model, "--images", folder, "-o", tmp_path / "out", "--draw", "1")
    survey = found["survey"]
    assert survey["mean_tokens"] == [9, 4, 13]
    assert survey["mean_macs"] == found["macs"]["static"]
    assert [stage["tokens"] for stage in found["stages"]][2:-1] == [9, 4, 13]
    assert sum(survey["histogram"]) == pytest.approx(1)
    assert survey["mean_depth"] == pytest.approx(
        sum(depth * share for depth, share in enumerate(survey["histogram"]))
    )
    reference = load_checkpoint(model)
    images = open_images(folder, reference.config)
    pixels = np.concatenate([batch for _, batch in images.batches(4)])
    traces = reference(torch.from_numpy(normalise(pixels, reference.config.preprocess))).traces
    patches = np.array([[d.router_logits[1:].numpy() for d in trace.decisions] for trace in traces])
    assert survey["judgement"]["spread"] == pytest.approx(patches.std(axis=2).mean(axis=0), rel=1e-4)
    text = _inspect(model, "--images", folder, "-o", tmp_path / "again").stdout
    for phrase in ("9, 4, 13 of all 17 tokens", "only active tokens in each step"):
        assert phrase in " ".join(text.split())


@pytest.mark.parametrize("changes", TOKEN, ids=named)
def test_token_choice_costs_what_its_depths_cost(
    tmp_path: Path, image_files: list[Path], changes: dict[str, Any]
) -> None:
    found = _json(
        _save(tmp_path, **changes), "--images", image_files[0].parent, "-o", tmp_path / "out", "--draw", "0"
    )
    survey = found["survey"]
    assert survey["histogram"][0] == 0  # every token runs a layer
    assert sum(survey["histogram"]) == pytest.approx(1)
    assert survey["mean_tokens"][0] == 16
    assert survey["mean_macs"] < found["macs"]["static"] < found["macs"]["masked"]


@pytest.mark.parametrize("changes", DENSE, ids=named)
def test_without_routing_there_are_no_maps(
    tmp_path: Path, image_files: list[Path], changes: dict[str, Any]
) -> None:
    result = _inspect(
        _save(tmp_path, **changes), "--images", image_files[0].parent, "-o", tmp_path / "out", "--draw", "0"
    )
    assert result.exit_code == 0, result.stderr
    assert "no routing: every token" in result.stdout
    assert not (tmp_path / "out").exists()


def test_labels_give_top1(tmp_path: Path, image_files: list[Path]) -> None:
    folder = image_files[0].parent
    model = _save(tmp_path)
    guesses = [
        seen["predicted"]
        for seen in _json(model, "--images", folder, "-o", tmp_path / "a", "--draw", "0")["survey"]["images"]
    ]
    labelled = tmp_path / "labelled"
    for path, guess in zip(image_files, [*guesses[:-1], (guesses[-1] + 1) % 10], strict=True):
        (labelled / str(guess)).mkdir(parents=True, exist_ok=True)
        (labelled / str(guess) / path.name).write_bytes(path.read_bytes())
    survey = _json(model, "--images", labelled, "-o", tmp_path / "b", "--draw", "0")["survey"]
    assert survey["top1"] == pytest.approx(5 / 6)


def test_equal_blocks_held_apart_are_named(tmp_path: Path) -> None:
    model = random_model(make_config(cycle_depth=2))
    model.cycle[1].load_state_dict(model.cycle[0].state_dict())
    save_checkpoint(model, tmp_path / "model")
    assert _json(tmp_path / "model")["twins"] == [["cycle.0", "cycle.1"]]


def test_existing_output_is_kept_unless_forced(tmp_path: Path, image_files: list[Path]) -> None:
    model, out = _save(tmp_path), tmp_path / "out"
    arguments = (model, "--images", image_files[0].parent, "-o", out, "--limit", "2")
    assert _inspect(*arguments).exit_code == 0
    refused = _inspect(*arguments)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert _inspect(*arguments, "--force", "--draw", "0").exit_code == 0
    assert sorted(file.name for file in out.iterdir()) == ["inspection.json", "overview.png"]


def test_bad_input_leaves_nothing(tmp_path: Path, image_files: list[Path], inside: Path) -> None:
    model = _save(tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.png").write_bytes(image_files[0].read_bytes())
    (images / "torn.png").write_bytes(b"no picture")
    for arguments, message in (
        ((model, "--images", images), "torn.png"),
        ((model, "--images", tmp_path / "absent"), "not a folder"),
        ((model, "-o", "out"), "--images"),
        ((tmp_path,), "config.json"),
        ((), "no checkpoint given"),
    ):
        result = _inspect(*arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert "Traceback" not in result.output
    assert list(inside.rglob("*.png")) == []


def test_the_reference_runs_in_float32(tmp_path: Path, image_files: list[Path]) -> None:
    """Predictions and depths are those of the model called directly."""
    from morvit_deploy.bundle.pixels import normalise, read_image
    from morvit_deploy.model.checkpoint import load_checkpoint

    folder = _save(tmp_path)
    survey = _json(folder, "--images", image_files[0].parent, "-o", tmp_path / "out")["survey"]
    model = load_checkpoint(folder)
    size = model.config.image_size
    for path, seen in zip(image_files, survey["images"], strict=True):
        pixels = read_image(path, model.config.preprocess, size)[None]
        outcome = model(torch.from_numpy(normalise(pixels, model.config.preprocess)))
        assert seen["predicted"] == outcome.logits.argmax().item()
        assert seen["mean_depth"] == pytest.approx(outcome.depth.float().mean().item())


@pytest.mark.parametrize("words", [["--limit", "3"], ["--upscale"], ["--exif"]], ids=" ".join)
def test_options_for_images_need_images(tiny_checkpoint: Path, words: list[str]) -> None:
    result = _inspect(tiny_checkpoint, *words)
    assert result.exit_code == 2 and "are for --images; give --images too" in result.stderr
