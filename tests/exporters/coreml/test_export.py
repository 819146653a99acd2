"""Target coreml: packages that answer as the reference does, in every form, on a machine without Core ML."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from config_matrix import REDUCING, named
from faster_export import traced_anew
from places import EXAMPLES
from tiny_models import make_config, normalised, random_model, random_pixels

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.errors import BundleError, ConfigError, PrecisionError
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.contract.names import PACKAGE
from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
from morvit_deploy.exporters.coreml.mil.package import read_package
from morvit_deploy.exporters.coreml.mlpackage.save import MODEL, WEIGHTS
from morvit_deploy.exporters.coreml.native import expose
from morvit_deploy.exporters.coreml.run import INTERPRETED
from morvit_deploy.exporters.coreml.target import TARGET
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.exporters.verification import verify
from morvit_deploy.model.answers.gates import ALL_FP16, GATES
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan
from morvit_deploy.verifying.findings import MARGIN

CARD = {"author": "An Author", "license": "MIT"}
FP32 = (
    1e-3  # × max(1, max |logit|) against the float64 reference: the bar; what is seen is a thousandth of it
)
FORMS = [{"layout": layout, "select": select} for layout in ("bsd", "bc1s") for select in ("topk", "onehot")]
LABELS = tuple(f"class {number}" for number in range(10))

Exported = Callable[..., Path]

SINGLE: list[dict[str, Any]] = [
    {},
    {"attention_scope": "all", "gate": "delta"},
    {"gate": "hard", "sharing": "cycle"},
    {"routing": "expert_choice_flat"},
    {"routing": "token_choice"},
    {"routing": "none", "sharing": "none"},
    {"routing": "none", "register_tokens": 2},
    REDUCING[1],
    REDUCING[4],
]
LADDERS: list[tuple[str, Config, Callable[[], Plan]]] = [
    ("thresholds", EXPERT, threshold_ladder),
    ("depths", TOKEN, depth_ladder),
]


def half_ladder(exported: Exported, layout: str = "bsd", select: str = "topk") -> Path:
    """Thresholds and three buckets in fp16, with a model card."""
    return exported(
        EXPERT, plan=threshold_ladder(), target="coreml", with_depth=True, allow_worse=True, **CARD,
        layout=layout, select=select,
    )  # fmt: skip


def full_ladder(exported: Exported, layout: str = "bsd", select: str = "topk") -> Path:
    """The same buckets in fp32."""
    return exported(
        EXPERT, plan=threshold_ladder(), target="coreml", precision="fp32", with_depth=True, layout=layout,
        select=select,
    )  # fmt: skip


def assert_answers(bundle: Path, config: Config, count: int = 4) -> None:
    """The package's logits, classes and depths for `count` pictures are the reference's."""
    manifest = open_manifest(bundle)
    pixels = random_pixels(config, count, seed=11)
    outcome = random_model(config).double()(normalised(config, pixels))
    assert all(trace.margin > MARGIN for trace in outcome.traces), "choose another seed"
    with open_bundle(bundle, threads=1) as session:
        answer = session.run(pixels)
    expected = outcome.logits.numpy()
    assert answer["logits"].dtype == np.float32
    assert np.abs(answer["logits"] - expected).max() <= FP32 * max(1, np.abs(expected).max())
    assert (answer["logits"].argmax(axis=1) == expected.argmax(axis=1)).all()
    if any(port.name == "depth" for port in manifest.outputs):
        assert answer["depth"].dtype == np.uint8
        assert answer["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
@pytest.mark.parametrize("changes", SINGLE, ids=named)
def test_one_function_answers_as_the_reference(
    exported: Exported, changes: dict[str, Any], form: dict[str, str]
) -> None:
    config = make_config(**changes)
    depth = config.routing != "none"
    bundle = exported(config, target="coreml", precision="fp32", with_depth=depth, **form)
    assert_answers(bundle, config)
    manifest = open_manifest(bundle)
    assert manifest.structure["proved"] and manifest.parity is not None and manifest.parity["passed"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
@pytest.mark.parametrize(("name", "config", "plan"), LADDERS, ids=[name for name, *_ in LADDERS])
def test_every_bucket_answers_as_the_reference(
    exported: Exported, name: str, config: Config, plan: Callable[[], Plan], form: dict[str, str]
) -> None:
    """`export` runs every image in every bucket against the reference held to it; here what it wrote down is read."""
    bundle = exported(config, plan=plan(), target="coreml", precision="fp32", with_depth=True, **form)
    manifest = open_manifest(bundle)
    assert CoremlForm.of(manifest).functions == ("stem", *(bucket.name for bucket in manifest.plan.buckets))
    assert manifest.dispatch == "host"
    assert manifest.parity is not None
    assert manifest.parity["conversion_gap"]["passed"]
    assert manifest.parity["dispatch"]["misdirected"] == 0
    assert all(bucket["judged"] > 0 for bucket in manifest.parity["buckets"])


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
def test_half_precision_routes_alike(exported: Exported, form: dict[str, str]) -> None:
    bundle = half_ladder(exported, **form)
    manifest = open_manifest(bundle)
    assert manifest.precision == "fp16"
    types = {port.name: port.dtype for port in (*manifest.carried, *manifest.outputs)}
    assert types["logits"] == "float32" and "float16" in types.values()
    assert manifest.parity is not None
    for seen in manifest.parity["fidelity"]:
        assert seen["snr_db"] > 35
        assert min(seen["token_agreement"]) > 0.97  # 32 pictures of a random model, some on the edge


@pytest.mark.parametrize("layout", ["bsd", "bc1s"])
def test_onehot_takes_nothing_by_index(exported: Exported, layout: str) -> None:
    bundle = full_ladder(exported, layout, "onehot")
    package = MilPackage(bundle / PACKAGE)
    kinds = {op.type for name in package.functions for op in package.function(name).operations}
    assert not {
        kind for kind in kinds if "topk" in kind or "gather" in kind or "scatter" in kind or "sort" in kind
    }


def test_an_older_system_takes_one_function(exported: Exported) -> None:
    config = make_config(labels=list(LABELS))
    bundle = exported(config, target="coreml", precision="fp32", ios=17)
    assert_answers(bundle, config)
    package = MilPackage(bundle / PACKAGE)
    assert package.functions == ("main",)
    assert package.function("main").opset == "CoreML7"
    assert set(package.function("main").outputs) == {"logits", "classLabel", "classLabel_probs"}


def test_a_classifier_names_the_class(exported: Exported) -> None:
    config = make_config(labels=list(LABELS))
    bundle = exported(config, target="coreml", precision="fp32")
    pixels = random_pixels(config, 1, seed=3)
    found = MilPackage(bundle / PACKAGE).run(
        "main", {"image": pixels.transpose(0, 3, 1, 2).astype(np.float32)}
    )
    assert str(found["classLabel"]) == LABELS[int(found["logits"].argmax())]
    assert abs(found["classLabel_probs"].sum() - 1) < 1e-5
    plain = exported(config, target="coreml", precision="fp32", classifier=False)
    assert set(MilPackage(plain / PACKAGE).function("main").outputs) == {"logits"}


def test_float_input(exported: Exported) -> None:
    config = make_config()
    bundle = exported(config, target="coreml", precision="fp32", input="float")
    (port,) = open_manifest(bundle).inputs
    assert (port.dtype, port.shape) == ("float32", (1, 3, 32, 32))
    assert_answers(bundle, config)


def test_fused_attention(exported: Exported) -> None:
    config = make_config(attention_scope="all", labels=None)
    bundle = exported(config, target="coreml", precision="fp32", attention="fused")
    assert_answers(bundle, config)
    operators = open_manifest(bundle).structure["operators"]
    # `last` attends from CLS to states, without keys
    assert operators["scaled_dot_product_attention"] == 4 and operators["softmax"] == 1


@pytest.mark.parametrize("weights", ["int8", "int4", "palette8", "palette6", "palette4"])
def test_weights_in_fewer_bits(exported: Exported, weights: str) -> None:
    config = make_config(embed_dim=64, mlp_dim=128)  # large enough to be compressed at all
    plain = exported(config, target="coreml")
    small = exported(config, target="coreml", weights=weights, allow_worse=True)
    bits = 4 if "4" in weights else 6 if "6" in weights else 8
    stored = {bundle: (bundle / PACKAGE / WEIGHTS).stat().st_size for bundle in (plain, small)}
    assert stored[small] / stored[plain] < bits / 16 + 0.25  # norms, positions and tables stay as they are
    manifest = open_manifest(small)
    assert manifest.structure["proved"]
    assert manifest.structure["block_applications"] == open_manifest(plain).structure["block_applications"]


def test_routers_keep_their_precision(exported: Exported) -> None:
    config = make_config(embed_dim=64, mlp_dim=128, routing="token_choice", router={"hidden": [64]})
    bundle = exported(config, target="coreml", weights="int4", allow_worse=True)
    router = random_model(config).routers[0].linears()[0].weight.numpy().astype(np.float16)
    package = MilPackage(bundle / PACKAGE)
    held = [op.constant.value for op in package.function("main").operations if op.type == "const"]
    assert any(isinstance(v, np.ndarray) and v.shape == router.shape and (v == router).all() for v in held)


def test_weights_are_stored_once_however_many_functions_read_them(exported: Exported) -> None:
    one = exported(make_config(), target="coreml", precision="fp32", with_depth=True, **FORMS[0])
    several = full_ladder(exported)
    sizes = [(bundle / PACKAGE / WEIGHTS).stat().st_size for bundle in (one, several)]
    assert sizes[1] <= 1.06 * sizes[0]  # blocks, norms and positions once; tiny ones are padded to 64 bytes


def test_exporting_twice_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    bundle = half_ladder(exported)
    folder = bundle.parent
    with traced_anew():
        export(
            folder / "checkpoint", tmp_path / "again", plan=folder / "plan.json", target="coreml",
            with_depth=True, allow_worse=True, **CARD,
        )  # fmt: skip
    for file in open_manifest(bundle).files:
        assert (tmp_path / "again" / file.path).read_bytes() == (bundle / file.path).read_bytes(), file.path


def test_the_model_card(exported: Exported) -> None:
    import coremltools as ct

    plan, bundle = threshold_ladder(), half_ladder(exported)
    spec = ct.utils.load_spec(str(bundle / PACKAGE))
    card = spec.description.metadata
    assert (card.author, card.license) == ("An Author", "MIT")
    facts = card.userDefined
    assert facts["morvit.checkpoint.sha256"] == open_manifest(bundle).checkpoint.sha256
    assert json.loads(facts["morvit.plan"])["thresholds"] == list(plan.thresholds or ())
    for function in spec.description.functions:
        assert all(port.shortDescription for port in (*function.input, *function.output)), function.name


def test_verify_reads_the_package_again(exported: Exported) -> None:
    bundle = full_ladder(exported)
    found = verify(bundle, bundle.parent / "checkpoint")
    assert found.passed and found.runtime == INTERPRETED
    other = bundle.parent / "other"
    save_checkpoint(random_model(EXPERT, seed=5), other)
    assert not verify(bundle, other).passed


def test_an_edited_package_is_refused(exported: Exported, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported(make_config(), target="coreml", precision="fp32"), tmp_path / "b"))
    path = bundle / PACKAGE / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"weight\.bin: content differs"):
        open_bundle(bundle)


def test_values_inside_become_outputs_for_core_ml(exported: Exported) -> None:
    """On macOS `verify` asks Core ML itself for them; the copy that it is given is read here."""
    bundle = half_ladder(exported)
    copy = expose(bundle / PACKAGE, "b0", ["step1_state", "step1_order"])
    package = MilPackage(copy)
    assert {"step1_state", "step1_order"} <= set(package.function("b0").outputs)
    assert "step1_state" not in package.function("full").outputs
    assert (bundle / PACKAGE / MODEL).read_bytes() != (copy / MODEL).read_bytes()


@pytest.mark.parametrize(
    ("config", "options", "told"),
    [
        (EXPERT, {"ios": 17, "plan": True}, "a package of several functions needs iOS 18 and macOS 15"),
        (EXPERT, {"ios": 16}, "ios: got 16, expected one of 17, 18"),
        (EXPERT, {"ios": 17, "weights": "int4"}, "weights 'int4' needs iOS 18"),
        (EXPERT, {"ios": 17, "attention": "fused"}, "attention 'fused' needs iOS 18"),
        (EXPERT, {"attention": "fused", "layout": "bc1s"}, "use layout 'bsd'"),
        (EXPERT, {"layout": "nchw"}, "layout: got 'nchw', expected one of bsd, bc1s"),
        (EXPERT, {"precision": "int8"}, "weights='int8'"),
        (EXPERT, {"batch": 4}, "takes one image"),
        (EXPERT, {"form": "masked"}, "baselines are exported to target onnx"),
        (EXPERT, {"dispatch": "graph", "plan": True}, "each bucket is a function"),
        (make_config(labels=None), {"classifier": True}, "the checkpoint has no labels"),
        (make_config(labels=["a"] * 2 + list(LABELS[2:])), {}, "'a' name more than one class each"),
    ],
    ids=lambda value: None if isinstance(value, Config) else str(value)[:40],
)
def test_what_no_package_can_be_is_refused(
    tmp_path: Path, config: Config, options: dict[str, Any], told: str
) -> None:
    save_checkpoint(random_model(config), tmp_path / "checkpoint")
    if options.pop("plan", False):
        (tmp_path / "plan.json").write_text(threshold_ladder().to_json())
        options |= {"plan": tmp_path / "plan.json"}
    with pytest.raises(ConfigError, match=told):
        export(tmp_path / "checkpoint", tmp_path / "bundle", target="coreml", **options)
    assert not (tmp_path / "bundle").exists()


def test_core_mls_options_are_for_core_ml(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="layout: only target coreml has this; target is 'onnx'"):
        export(tiny_checkpoint, tmp_path / "out", layout="bc1s")


def test_a_package_that_loses_too_much_is_refused(tmp_path: Path) -> None:
    save_checkpoint(random_model(make_config(embed_dim=64, mlp_dim=128)), tmp_path / "checkpoint")
    with pytest.raises(
        PrecisionError, match="--precision fp32, or --weights with more bits, may help, --allow-worse"
    ):
        export(tmp_path / "checkpoint", tmp_path / "out", target="coreml", weights="palette4")
    assert not (tmp_path / "out").exists()


def test_the_gate_is_that_of_what_is_computed_in_fp16_throughout(exported: Exported) -> None:
    manifest = open_manifest(half_ladder(exported))
    assert manifest.gate(None) == GATES[ALL_FP16]
    small = CoremlForm.of(manifest).model_copy(update={"weights": "int8"})
    assert manifest.model_copy(update={"target_form": small}).gate(None) == GATES["int8"]
    assert manifest.model_copy(update={"precision": "fp32"}).gate(None) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits-expert", "digits-token"])
def test_the_shipped_examples_need_no_option(name: str, tmp_path: Path) -> None:
    bundle = export(EXAMPLES / name, tmp_path / "bundle", target="coreml", images=EXAMPLES / "digits-test")
    assert bundle.verification.passed and not bundle.warnings


def test_sessions_of_one_bundle_read_it_once(exported: Exported) -> None:
    bundle = half_ladder(exported)
    with (
        patch("morvit_deploy.exporters.coreml.mil.interpreter.read_package", wraps=read_package) as reading,
        open_bundle(bundle, bucket="b0"),
        open_bundle(bundle),
    ):
        assert reading.call_count == 1


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ({"coremltools": "9.0", "torch": "2.13.0+cpu"}, []),
        ({"coremltools": "10.1", "torch": "2.13.1"}, ["coremltools 10.1", ">=9.0,<9.1"]),
        ({"coremltools": "9.0", "torch": "2.11.0"}, ["torch 2.11.0", ">=2.13,<2.14"]),
    ],
    ids=["tested", "coremltools", "torch"],
)
def test_versions_that_were_not_tested_are_named_beside_those_that_were(
    installed: dict[str, str], told: list[str]
) -> None:
    with patch("morvit_deploy.exporters.targets.installed", side_effect=installed.get):
        sentences = TARGET.needs.untested(TARGET.needs.export)
    assert len(sentences) == bool(told)
    assert all(word in sentences[0] for word in told)
