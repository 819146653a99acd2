"""The demo on two tiny random models: every step runs and its report is whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from table_checks import problems
from tiny_models import make_config, random_model

from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.cli.demo import _examples
from morvit_deploy.cli.demo_steps import run_demo
from morvit_deploy.errors import ConfigError, OutputError
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.report import Table

IMAGES = 6


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    expert = make_config()
    token = make_config(routing="token_choice", gate="hard", attention_scope="all", capacity=None)
    save_checkpoint(random_model(expert, 1), folder / "digits-expert")
    save_checkpoint(random_model(token, 2), folder / "digits-token")
    (folder / "digits-test").mkdir()
    rows = ["file,label"]
    for i, pixels in enumerate(synthetic_images(IMAGES, 48)):
        Image.fromarray(pixels).save(folder / "digits-test" / f"{i}.png")
        rows.append(f"{i}.png,{expert.labels[i] if expert.labels else i}")
    (folder / "digits-test" / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def made(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "demo"
    demo = run_demo(examples, out, quick=True)
    assert [one.verification.passed for one in demo.models] == [True, True]
    assert demo.models[0].bench is not None
    for part in demo.report.parts:
        for width in (80, 120):
            assert not (isinstance(part, Table) and problems(part, width)), (
                "its tables keep words and units whole"
            )
    return out


def test_it_leaves_bundles_pictures_and_a_report(made: Path) -> None:
    for name in ("digits-expert", "digits-expert-naive", "digits-expert-coreml", "digits-token"):
        assert (made / name / "manifest.json").is_file()
    for name in ("digits-expert", "digits-token"):
        assert np.asarray(Image.open(made / f"{name}-depth.png")).ndim == 3
    page = (made / "report.html").read_text()
    assert "digits-expert-naive" in page and page.count("data:image/png;base64,") == 3
    assert "| digits-token |" in (made / "report.md").read_text()


def test_top1_of_bundle_and_reference_is_the_same(made: Path) -> None:
    record = json.loads((made / "demo.json").read_text())
    for model in record["models"]:
        assert model["top1"] == model["reference_top1"]
        assert model["same_answers"] == 1.0


def test_it_refuses_to_overwrite(examples: Path, made: Path) -> None:
    with pytest.raises(OutputError, match="--force"):
        run_demo(examples, made)


def test_missing_examples_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digits-expert"):
        _examples(tmp_path)
