"""Features and patch tokens instead of logits: equal to the reference, in every target, and written by `predict`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from adaptive_plans import depth_plan, threshold_plan
from commands import answer, run
from config_matrix import EVERY, OWNING, REDUCING, named
from PIL import Image
from tiny_models import EXACT, make_config, normalised, own_bucket, random_model, random_pixels
from torch.utils.flop_counter import FlopCounterMode

from morvit_deploy.errors import ConfigError, TargetError
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.check import check_bundle
from morvit_deploy.exporters.prediction import predict
from morvit_deploy.exporters.request import Request
from morvit_deploy.exporters.targets import open_session
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import unroll, unroll_plan
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.choices import Output
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import schedule_macs
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.trace import Routing

OUTPUTS: tuple[Output, ...] = ("features", "tokens")
RETURNED = 1e-4  # × max(1, max |value|): float32 round-off of the runtime
POOLED: list[dict[str, Any]] = [
    {"pooling": "mean"},
    {"pooling": "mean_norm", "sharing": "cycle"},
    {"routing": "none", "register_tokens": 2},
    {"routing": "none", "cls_token": False, "pooling": "mean"},
]


EVERYTHING = [(changes, output) for changes in (*EVERY, *OWNING, *POOLED) for output in OUTPUTS]
CASES = [  # tokens of a shortened ViT are refused
    (changes, output) for changes, output in EVERYTHING if output != "tokens" or changes not in REDUCING
]


@pytest.mark.parametrize(
    ("changes", "output"), CASES, ids=[f"{named(changes)}-{output}" for changes, output in CASES]
)
def test_the_static_graph_returns_what_the_reference_does(changes: dict[str, Any], output: Output) -> None:
    config = make_config(**changes)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 2)
    expected = model(normalised(config, pixels), output=output).vectors
    graph = unroll(model, own_bucket(config), Options(style=STYLES["rows"], output=output))
    assert (graph(torch.from_numpy(pixels))[output] - expected).abs().max() <= EXACT


@pytest.mark.parametrize("style", ["one-image", "bsd-topk", "bsd-onehot", "bc1s-topk", "bc1s-onehot"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("routing", ["expert_choice", "expert_choice_flat", "token_choice", "none"])
def test_every_style_returns_the_same(routing: str, output: Output, style: str) -> None:
    config = make_config(routing=routing)
    model = random_model(config, dtype=torch.float64)
    images = normalised(config, random_pixels(config, 1))
    expected = model(images, output=output).vectors
    for with_depth in (False, True):
        options = Options(input="float", with_depth=with_depth, style=STYLES[style], output=output)
        found = unroll(model, own_bucket(config), options)(images)[output]
        assert found.shape == expected.shape and (found - expected).abs().max() <= EXACT


def ladder(config: Config) -> Plan:
    return threshold_plan(config, (0.0,) * config.num_steps, [(5, 4, 2)])


def depths(config: Config) -> Plan:
    return depth_plan(config, [(16, 9, 4, 2, 1)[: config.num_steps]])


PLANS: dict[str, tuple[dict[str, Any], Callable[[Config], Plan]]] = {
    "thresholds": ({}, ladder),
    "depths": ({"routing": "token_choice"}, depths),
    "depths, active": ({"routing": "token_choice", "attention_scope": "active"}, depths),
}


@pytest.mark.parametrize("style", ["rows", "bsd-topk", "bc1s-onehot"])
@pytest.mark.parametrize(("changes", "plan_of"), PLANS.values(), ids=PLANS)
def test_tokens_of_every_bucket_are_in_their_own_order(
    changes: dict[str, Any], plan_of: Callable[[Config], Plan], style: str
) -> None:
    config = make_config(**changes)
    model, plan = random_model(config, dtype=torch.float64), plan_of(config)
    images = normalised(config, random_pixels(config, 1))
    graphs = unroll_plan(model, plan, Options(input="float", style=STYLES[style], output="tokens"))
    for bucket in plan.buckets:
        expected = model(images, Routing(plan.thresholds, bucket.capacity), "tokens").vectors
        assert (graphs[bucket.name](images)["tokens"] - expected).abs().max() <= EXACT


def test_features_are_what_the_head_reads() -> None:
    config = make_config(head_hidden=[14])
    model = random_model(config, dtype=torch.float64)
    outcome = model(normalised(config, random_pixels(config, 2)), output="features")
    assert outcome.vectors is not None
    assert (model.logits(outcome.vectors) - outcome.logits).abs().max() <= EXACT


def test_the_mean_of_tokens_is_the_feature() -> None:
    config = make_config(pooling="mean")
    model = random_model(config, dtype=torch.float64)
    images = normalised(config, random_pixels(config, 2))
    tokens, features = (model(images, output=output).vectors for output in ("tokens", "features"))
    assert (tokens.mean(dim=1) - features).abs().max() <= EXACT


@pytest.mark.parametrize("output", get_args(Output))
@pytest.mark.parametrize("routing", ["expert_choice", "token_choice", "none"])
def test_macs_are_those_that_torch_counts(routing: str, output: Output) -> None:
    config = make_config(routing=routing)
    bucket = own_bucket(config)
    graph = unroll(random_model(config), bucket, Options(output=output))
    with FlopCounterMode(display=False) as counter:
        graph(torch.from_numpy(random_pixels(config, 1)))
    assert counter.get_total_flops() == 2 * schedule_macs(config, bucket.capacity, output=output)


EXPORTS: dict[str, tuple[dict[str, Any], Callable[[Config], Plan] | None, dict[str, Any]]] = {
    "onnx": ({}, None, {}),
    "dynamic, flat": ({"routing": "expert_choice_flat"}, None, {"batch": "dynamic", "with_depth": True}),
    "fp16": ({"routing": "none"}, None, {"precision": "fp16"}),
    "graph": ({}, ladder, {}),
    "graph, depths": ({"routing": "token_choice"}, depths, {}),
    "host": ({}, ladder, {"dispatch": "host", "batch": 2}),
    "coreml": ({"routing": "none"}, None, {"target": "coreml", "precision": "fp32"}),
    "coreml, channels first": ({}, None, {"target": "coreml", "layout": "bc1s", "select": "onehot"}),
    "coreai": ({"routing": "none"}, None, {"target": "coreai"}),
    "trt": ({"routing": "none"}, None, {"target": "trt"}),
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("changes", "plan_of", "options"), EXPORTS.values(), ids=EXPORTS)
def test_an_export_passes_its_proofs(
    changes: dict[str, Any],
    plan_of: Callable[[Config], Plan] | None,
    options: dict[str, Any],
    output: Output,
    exported: Callable[..., Path],
) -> None:
    config = make_config(**changes)
    plan = {} if plan_of is None else {"plan": plan_of(config)}
    bundle = exported(config, output=output, **plan, **options)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["output"] == output == manifest["outputs"][0]["name"]
    assert "logits" not in {port["name"] for port in manifest["outputs"]}
    found = answer("verify", bundle, "--checkpoint", bundle.parent / "checkpoint")
    assert found["passed"]
    assert f"finite {output}" in check_bundle(bundle).checked["run"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    large = make_config(image_size=40, preprocess={"resize": 40})
    for number, pixels in enumerate(random_pixels(large, 3)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("output", OUTPUTS)
def test_predict_writes_a_row_for_each_image(
    output: Output, exported: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    config = make_config()
    bundle = exported(config, output=output)
    found = answer("predict", bundle, pictures, "--features", tmp_path / "out.npy")
    rows = np.load(tmp_path / "out.npy")
    with open_session(bundle) as session:
        pixels = np.stack([session.read(entry["image"]) for entry in found["predictions"]])
    expected = random_model(config).double()(normalised(config, pixels), output=output).vectors.numpy()
    assert rows.dtype == np.float32 and rows.shape == expected.shape
    assert np.abs(rows - expected).max() <= RETURNED * max(1.0, np.abs(expected).max())
    assert found["predictions"][0]["shape"] == list(rows.shape[1:])
    again = run("predict", bundle, pictures, "--features", tmp_path / "out.npy")
    assert again.exit_code == 2 and "out.npy" in again.output
    one, *_ = predict(bundle, pictures)
    assert one.features is not None and np.array_equal(one.features, rows[0])
    with pytest.raises(TargetError, match=f"returns {output}, not classes"):
        _ = one.label
    assert output in one.report().markdown()


def test_no_array_is_written_among_the_pictures(
    exported: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    """The next run would read it as a picture."""
    bundle = exported(make_config(), output="features")
    ended = run("predict", bundle, pictures, "--features", pictures / "out.npy")
    assert ended.exit_code == 2 and "choose a place outside" in " ".join(ended.output.split())
    assert not (pictures / "out.npy").exists()


def test_what_does_not_fit_is_refused_by_name(
    exported: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    of_logits, of_features = exported(make_config()), exported(make_config(), output="features")
    for words, arguments in {
        "export it again with --output features": (of_logits, pictures, "--features", tmp_path / "a.npy"),
        "give --features FILE.npy": (of_features, pictures),
        "for bundles that return logits": (
            of_features,
            pictures,
            "--features",
            tmp_path / "a.npy",
            "--logits",
        ),
    }.items():
        result = run("predict", *arguments)
        assert result.exit_code == 2 and words in result.output.replace("\n", " ")
    assert not (tmp_path / "a.npy").exists()
    with (
        open_session(of_features) as session,
        pytest.raises(TargetError, match="returns features, not logits"),
    ):
        session.logits(random_pixels(make_config(), 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "masked"}, "baselines return logits"),
        ({"precision": "int8", "images": Path()}, "judged by its classes"),
        ({"output": "embedding"}, "output: got 'embedding', expected one of logits, features, tokens"),
    ],
    ids=["baseline", "int8", "unknown"],
)
def test_an_export_that_is_not_supported(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Request(checkpoint=Path(), out=Path(), **({"output": "features"} | options))


@pytest.mark.parametrize("routing", ["attentive", "predicted", "merged"])
def test_tokens_of_a_shortened_vit_are_refused(tmp_path: Path, routing: str) -> None:
    """Its last layers hold fewer tokens than the image has patches; its features are those of CLS."""
    save_checkpoint(random_model(make_config(routing=routing)), tmp_path / "model")
    with pytest.raises(ConfigError, match=f"output: got 'tokens' with routing '{routing}'"):
        export(tmp_path / "model", tmp_path / "bundle", output="tokens")
    export(tmp_path / "model", tmp_path / "bundle", output="features")
