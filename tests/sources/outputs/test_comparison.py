"""The reading of a checkpoint compared with the source's own outputs: what passes, what fails, and why."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import source_models
import torch
from PIL import Image
from places import ROOT
from source_outputs import as_inputs, outputs_of, written
from third_party import third_party
from tiny_models import make_config, random_model

from morvit_deploy import convert
from morvit_deploy.errors import ParityError
from morvit_deploy.model.checkpoint import load_checkpoint
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.sources.outputs.comparison import (
    check_source,
    compare_with_source,
    half_range,
    recorded_gap,
)
from morvit_deploy.sources.outputs.gap import FLOAT_TOLERANCE, HALF_TOLERANCE, NOT_CHECKED, described

MODEL = random_model(make_config(routing="none"))
SOUND = outputs_of(MODEL)
LOGITS = SOUND["logits"]
HALF = half_range(LOGITS.astype(np.float64))
ROUTINGS = ("none", "expert_choice", "expert_choice_flat", "token_choice")


@pytest.mark.parametrize("routing", ROUTINGS)
def test_own_outputs_in_float32_pass(tmp_path: Path, routing: str) -> None:
    model = random_model(make_config(routing=routing))
    outputs = outputs_of(model, 12)
    for arrays in (outputs, as_inputs(model, outputs)):
        gap = compare_with_source(model, written(tmp_path / "r.npz", **arrays))
        assert gap.passed and gap.compared >= 6 and gap.top1_agreement == 1
        assert gap.compared + gap.ambiguous == gap.total == 12
        assert gap.tolerance == pytest.approx(FLOAT_TOLERANCE * half_range(outputs["logits"]), rel=0.5)


@pytest.mark.parametrize(("part", "passes"), [(0.9, True), (1.1, False)])
@pytest.mark.parametrize(
    ("dtype", "relative"),
    [("float32", FLOAT_TOLERANCE), ("float64", FLOAT_TOLERANCE), ("float16", HALF_TOLERANCE)],
)
def test_each_precision_has_its_tolerance(
    tmp_path: Path, dtype: str, relative: float, part: float, passes: bool
) -> None:
    logits = LOGITS.astype(np.float64)
    middle = np.unravel_index(np.argsort(logits, axis=None)[logits.size // 2], logits.shape)
    logits[middle] += part * relative * HALF  # no extreme: the range stays
    gap = compare_with_source(MODEL, written(tmp_path / "r.npz", **SOUND | {"logits": logits.astype(dtype)}))
    assert gap.dtype == dtype and gap.passed == passes


def misread(**changes: Any) -> MoRViT:
    """The same weights read with another setting."""
    other = copy.deepcopy(MODEL)
    fields = make_config(routing="none", **changes)
    model = MoRViT(fields).eval().requires_grad_(False)
    model.load_state_dict(other.state_dict())
    return model


WRONG_READINGS: dict[str, dict[str, Any]] = {
    "gelu_tanh": {"activation": "gelu_tanh"},
    "relu": {"activation": "relu"},
    "heads": {"num_heads": 4},
    "epsilon": {"norm_eps": 1e-3},
    "mean": {"preprocess": {"mean": [0.5, 0.5, 0.5]}},
    "std": {"preprocess": {"std": [0.2, 0.25, 0.3]}},
    "order of colors": {"preprocess": {"mean": [0.6, 0.5, 0.4], "std": [0.2, 0.25, 0.3]}},
}


@pytest.mark.parametrize("changes", WRONG_READINGS.values(), ids=WRONG_READINGS)
def test_a_wrong_reading_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = written(tmp_path / "r.npz", **SOUND)
    with pytest.raises(
        ParityError, match=r"^nothing was written: .*max .Δlogit. .*likely causes, in order:\n"
    ):
        check_source(misread(**changes), path, "nothing was written")


def softmax(logits: Any) -> Any:
    return torch.from_numpy(logits).softmax(-1).numpy()


CAUSES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "softmax": (softmax, "probabilities: "),
    "log_softmax": (lambda x: np.log(softmax(x)), "log-probabilities: "),
    "classes": (lambda x: x[:, ::-1].copy(), "order of classes: "),
    "images": (lambda x: np.roll(x, 1, axis=0), "order of images: "),
    "bias": (lambda x: x + np.linspace(-1, 1, x.shape[1], dtype=x.dtype), "bias of the head: "),
    "TF32": (lambda x: x + np.float32(2e-4 * HALF) * np.sign(np.sin(99 * x)), "precision of the source: "),
    "anything": (lambda x: x + np.sin(99 * x), "pooling: "),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("change", "cause"), CAUSES.values(), ids=CAUSES)
def test_the_likely_cause_is_named(tmp_path: Path, change: Callable[[Any], Any], cause: str) -> None:
    gap = compare_with_source(MODEL, written(tmp_path / "r.npz", **SOUND | {"logits": change(LOGITS)}))
    assert not gap.passed and gap.likely[0].startswith(cause)
    assert gap.failure.splitlines()[1].startswith(f"  - {cause}")


def test_often_misread_settings_are_named_in_order_and_with_their_values(tmp_path: Path) -> None:
    gap = compare_with_source(
        MODEL, written(tmp_path / "r.npz", **SOUND | {"logits": LOGITS + np.sin(99 * LOGITS)})
    )
    assert [cause.split(":")[0] for cause in gap.likely] == [
        "pooling", "normalization", "activation", "head width", "entry", "the source",
    ]  # fmt: skip
    assert "mean (0.4, 0.5, 0.6)" in gap.likely[1] and "2 heads of 8" in gap.likely[3]


def test_a_model_that_overflows_fails(tmp_path: Path) -> None:
    model = copy.deepcopy(MODEL)
    model.head_layers()[-1].bias[0] = torch.inf
    gap = compare_with_source(model, written(tmp_path / "r.npz", **SOUND))
    assert not gap.passed and "not finite" in gap.likely[0] and gap.as_dict()["max_abs"] is None


def test_images_whose_routing_is_ambiguous_cannot_pass_alone(tmp_path: Path) -> None:
    model = random_model(make_config())
    for router in model.all_routers():
        for layer in router.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
    gap = compare_with_source(model, written(tmp_path / "r.npz", **outputs_of(model)))
    assert (gap.compared, gap.ambiguous, gap.passed) == (0, 6, False)
    assert "0 of 6 images compared: the routing margin" in gap.failure


def test_small_logits_are_judged_by_their_own_range(tmp_path: Path) -> None:
    """A head that was hardly trained: an absolute tolerance would let any reading pass."""
    model = copy.deepcopy(MODEL)
    for parameter in model.head_layers()[-1].parameters():
        parameter *= 1e-5
    path = written(tmp_path / "r.npz", **outputs_of(model))
    assert compare_with_source(model, path).passed
    model.config = misread(activation="relu").config
    model = copy.deepcopy(model)
    other = MoRViT(model.config).eval().requires_grad_(False)
    other.load_state_dict(model.state_dict())
    assert not compare_with_source(other, path).passed


def recipe() -> str:
    """The lines of the documentation that make a file."""
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.+?)```", page, re.DOTALL)
    assert found
    return found.group(1)


def test_the_documented_recipe_reaches_back_to_the_users_model(
    tmp_path: Path, image_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(recipe().splitlines()) == 5
    model = third_party("timm").create_model(
        "vit_tiny_patch16_224",
        num_classes=10,
        img_size=224,
        patch_size=32,
        embed_dim=16,
        num_heads=2,
        depth=3,
    )
    source_models.randomise(model, seed=1)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    monkeypatch.chdir(tmp_path)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    names: dict[str, Any] = {"np": np, "torch": torch, "Image": Image, "paths": image_files}
    names |= {"model": model, "mean": mean, "std": std}
    exec(recipe(), names)
    say: dict[str, Any] = {
        "pooling": "cls",
        "image_size": 224,
        "norm_eps": 1e-6,
        "num_heads": 2,
        "activation": "gelu",
        "reference": "reference.npz",
    }
    done = convert("m.pth", "right", preprocess="imagenet", **say)
    assert (
        done.reference is not None and done.reference.passed and done.reference.compared == len(image_files)
    )
    for wrong in ({"preprocess": "inception"}, {"num_heads": 4}, {"activation": "gelu_tanh"}):
        with pytest.raises(ParityError, match=r"m\.pth was not converted"):
            convert("m.pth", "wrong", **{"preprocess": "imagenet"} | say | wrong)
    assert not Path("wrong").exists()
    model.global_pool = "avg"
    exec(recipe(), names)
    with pytest.raises(ParityError, match="pooling: the head was read as taking the CLS token"):
        convert("m.pth", "wrong", preprocess="imagenet", **say)
    assert recorded_gap(load_checkpoint("right")) == done.reference


def test_what_convert_recorded_holds_only_for_the_same_weights_and_settings(tmp_path: Path) -> None:
    model = copy.deepcopy(MODEL)
    gap = compare_with_source(model, written(tmp_path / "r.npz", **SOUND))

    def with_record(of: MoRViT, record: Any) -> MoRViT:
        of = copy.deepcopy(of)
        of.config = of.config.model_copy(update={"provenance": {"reference": record}})
        return of

    record = gap.model_dump(mode="json")
    assert recorded_gap(with_record(model, record)) == gap
    assert "checked by `convert`: 6 of 6 images" in described(None, gap)
    assert recorded_gap(with_record(misread(activation="relu"), record)) is None
    changed = with_record(model, record)
    changed.cls_token += 1e-6
    assert recorded_gap(changed) is None
    for wrong in (None, 3, {}, record | {"max_abs": 1e9}, record | {"compared": "six"}):
        assert recorded_gap(with_record(model, wrong)) is None
    assert described(None, None) == NOT_CHECKED
