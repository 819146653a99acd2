"""The demo on tiny random models: every step runs, scenes come first, and the report is whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from adaptive_plans import threshold_plan
from PIL import Image
from scene_runs import SCENE_CONFIG, TAUS
from table_checks import problems
from tiny_models import make_config, random_model

from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.demo.gain import DOES_NOT, PAYS, UNDECIDED
from morvit_deploy.demo.routing import macs_of_images
from morvit_deploy.demo.run import run_demo
from morvit_deploy.errors import OutputError
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import stem_macs
from morvit_deploy.report import Table

IMAGES = 6


def save_test_pictures(folder: Path, config: Config, objects: bool) -> None:
    """Pictures of all kinds; or of two kinds, for few buckets, with the number of objects of each."""
    folder.mkdir()
    rows = ["file,label,objects" if objects else "file,label"]
    kinds = synthetic_images(IMAGES, 48)[: 2 if objects else IMAGES]
    for i in range(IMAGES):
        Image.fromarray(kinds[i % len(kinds)]).save(folder / f"{i}.png")
        label = config.labels[i] if config.labels else i
        rows.append(f"{i}.png,{label}" + f",{1 + i % 2}" * objects)
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    expert = make_config()
    token = make_config(routing="token_choice", gate="hard", attention_scope="all", capacity=None)
    save_checkpoint(random_model(expert, 1), folder / "digits-expert")
    save_checkpoint(random_model(token, 2), folder / "digits-token")
    save_checkpoint(random_model(SCENE_CONFIG, 3), folder / "scenes-thresholds")
    save_checkpoint(random_model(expert, 3), folder / "scenes-topk")
    save_test_pictures(folder / "digits-test", expert, objects=False)
    save_test_pictures(folder / "scenes-test", expert, objects=True)
    return folder


@pytest.fixture(scope="module")
def made(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "demo"
    demo = run_demo(examples, out, quick=True)
    assert [one.name for one in demo.models] == ["digits-expert", "digits-token"]
    assert [one.verification.passed for one in demo.models] == [True, True] and demo.scenes.verified
    assert demo.models[0].bench is not None
    assert demo.report.result.startswith(demo.scenes.sentences)
    for part in demo.report.parts:
        for width in (80, 120):
            assert not (isinstance(part, Table) and problems(part, width)), (
                "its tables keep words and units whole"
            )
    return out


def test_it_leaves_bundles_pictures_and_a_report(made: Path) -> None:
    scenes = ("scenes-adaptive", "scenes-dense")
    for name in (*scenes, "digits-expert", "digits-expert-naive", "digits-expert-coreml", "digits-token"):
        assert (made / name / "manifest.json").is_file()
    for name in ("digits-expert", "digits-token"):
        assert np.asarray(Image.open(made / f"{name}-depth.png")).ndim == 3
    page = (made / "report.html").read_text()
    assert "digits-expert-naive" in page and page.count("data:image/png;base64,") == 4
    assert "| digits-token |" in (made / "report.md").read_text()


def test_scenes_come_first(made: Path) -> None:
    page, text = (made / "report.html").read_text(), (made / "report.md").read_text()
    page = page.replace("\N{NO-BREAK SPACE}", " ")  # which holds numbers and units together
    assert page.index("Scenes by number of digits") < page.index("Models") < page.index("Token depth")
    assert text.index("![Scenes by number of digits](scenes.png)") < text.index("### Models")
    record = json.loads((made / "demo.json").read_text())["scenes"]
    assert page.index(record["sentence"]) < page.index("<img")
    assert 1000 <= np.asarray(Image.open(made / "scenes.png")).shape[1] <= 1400


def test_the_record_of_the_scenes(made: Path) -> None:
    scenes = json.loads((made / "demo.json").read_text())["scenes"]
    assert scenes["images"]["objects"] == [1, 2, 1, 2, 1, 2]
    assert scenes["gain"]["outcome"] in (PAYS, DOES_NOT, UNDECIDED)
    adaptive, *fixed = scenes["gain"]["ways"]
    assert adaptive["macs"] == pytest.approx(scenes["plan"]["calibration"]["expected_macs"])
    assert {way["checkpoint"] for way in fixed} == {"scenes-thresholds", "scenes-topk"}
    assert all(len(ms) == IMAGES and min(ms) > 0 for ms in scenes["timed"]["ms"].values())


def test_an_image_that_overflows_pays_for_both_buckets() -> None:
    plan = threshold_plan(SCENE_CONFIG, TAUS, [(6, 4, 2)], upto=(6,))
    small, full = plan.buckets
    counts = np.array([[6, 4, 2], [6, 5, 2], [7, 1, 1]])
    both = small.macs + full.macs - stem_macs(SCENE_CONFIG)
    assert macs_of_images(SCENE_CONFIG, plan, counts).tolist() == [small.macs, both, full.macs]


def test_top1_of_bundle_and_reference_is_the_same(made: Path) -> None:
    record = json.loads((made / "demo.json").read_text())
    for model in record["models"]:
        assert model["top1"] == model["reference_top1"]
        assert model["same_answers"] == 1.0


def test_it_refuses_to_overwrite(examples: Path, made: Path) -> None:
    with pytest.raises(OutputError, match="--force"):
        run_demo(examples, made)
