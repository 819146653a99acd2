"""Target coreai: assets that Apple's own runtime executes here as the reference does."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from absent import COMMAND, without
from bucket_plans import EXPERT, TOKEN, depth_ladder, stepped_ladder, threshold_ladder
from config_matrix import REDUCING, named
from tiny_models import make_config, normalised, random_model, random_pixels
from torch import Tensor

from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.errors import BundleError, ConfigError, MorvitWarning, TargetError
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.coreai import convert, proof
from morvit_deploy.exporters.coreai.export import CoreaiExporter
from morvit_deploy.exporters.coreai.form import CoreaiForm
from morvit_deploy.exporters.coreai.names import ASSET, TESTED
from morvit_deploy.exporters.coreai.printed.asset import PROGRAM
from morvit_deploy.exporters.coreai.printed.program import ProgramText
from morvit_deploy.exporters.coreai.run import NOT_THE_DEVICE, SUMMED_WIDE
from morvit_deploy.exporters.coreai.runtime import Executable
from morvit_deploy.exporters.coreai.target import TARGET
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.pieces import Named
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.machine.extras import is_missing
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan
from morvit_deploy.verifying.gaps import LOGIT_TOLERANCE

pytestmark = pytest.mark.skipif(
    is_missing("coreai_torch") or is_missing("coreai"),
    reason='needs Core AI: pip install "morvit-deploy[coreai]" on macOS or on Linux on x86-64',
)

FP32 = 1e-4  # × max(1, max |logit|) against the float64 reference: the bar; what is seen is a hundredth of it
SINGLE: list[dict[str, Any]] = [
    {},
    {"attention_scope": "all", "gate": "delta"},
    {"routing": "expert_choice_flat"},
    {"routing": "token_choice"},
    {"routing": "none", "register_tokens": 2, "sharing": "none"},
    REDUCING[1],
    REDUCING[4],
]
LADDERS = [("thresholds", EXPERT, threshold_ladder), ("depths", TOKEN, depth_ladder)]

Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def ladder(exported: Exported) -> Path:
    """Thresholds and three buckets in fp32."""
    return exported(EXPERT, plan=stepped_ladder(), target="coreai", with_depth=True)


def assert_parity(bundle: Path) -> Manifest:
    """`export` ran every image in every bucket against the reference held to it; here what it wrote down is read."""
    manifest = open_manifest(bundle)
    parity = manifest.parity
    assert manifest.structure["proved"] and parity is not None and parity["passed"]
    assert LOGIT_TOLERANCE <= FP32
    assert parity["runtime"] == NOT_THE_DEVICE
    return manifest


def test_every_bucket_answers_as_the_reference(ladder: Path) -> None:
    manifest = assert_parity(ladder)
    names = tuple(bucket.name for bucket in manifest.plan.buckets)
    assert CoreaiForm.of(manifest).functions == ("stem", *names) == ("stem", "b0", "b1", "full")
    assert manifest.dispatch == "host" and manifest.parity is not None
    assert manifest.parity["dispatch"]["misdirected"] == 0
    assert all(bucket["judged"] > 0 for bucket in manifest.parity["buckets"])
    inside = {*manifest.probes, *(port.name for port in manifest.carried)}
    assert {"b1/step2.order", "b1/step2.state", "step1.router_logits"} <= inside


def test_one_function_without_topk_answers_as_the_reference(exported: Exported) -> None:
    bundle = exported(EXPERT, target="coreai", select="onehot", with_depth=True)
    manifest = assert_parity(bundle)
    assert CoreaiForm.of(manifest).functions == ("main",)
    assert not {"topk", "sort", "argsort", "gather_along_axis"} & set(manifest.structure["operators"])
    pixels = random_pixels(EXPERT, 2, seed=11)
    outcome = random_model(EXPERT).double()(normalised(EXPERT, pixels))
    with open_bundle(bundle) as session:
        found = session.run(pixels)
    scale = max(1.0, float(np.abs(outcome.logits.numpy()).max()))
    assert np.abs(found["logits"] - outcome.logits.numpy()).max() <= FP32 * scale
    assert found["depth"].dtype == np.uint8 and found["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("select", ["topk", "onehot"])
@pytest.mark.parametrize("changes", SINGLE, ids=named)
def test_every_routing(exported: Exported, changes: dict[str, Any], select: str) -> None:
    config = make_config(**changes)
    depth = config.routing != "none"
    assert_parity(exported(config, target="coreai", select=select, with_depth=depth))


@pytest.mark.slow
@pytest.mark.parametrize("select", ["topk", "onehot"])
@pytest.mark.parametrize(("name", "config", "plan"), LADDERS, ids=[name for name, *_ in LADDERS])
def test_every_plan(
    exported: Exported, name: str, config: Config, plan: Callable[[], Plan], select: str
) -> None:
    assert_parity(exported(config, plan=plan(), target="coreai", select=select, with_depth=True))


@pytest.mark.slow
@pytest.mark.parametrize("select", ["topk", "onehot"])
def test_half_precision_meets_its_gate(exported: Exported, select: str) -> None:
    bundle = exported(EXPERT, target="coreai", precision="fp16", select=select, allow_worse=True)
    manifest = open_manifest(bundle)
    types = {port.name: port.dtype for port in manifest.outputs}
    assert manifest.structure["proved"] and types["logits"] == "float32"
    assert manifest.parity is not None and manifest.parity["fidelity"][0]["snr_db"] > 35
    assert manifest.parity["runtime"] == (SUMMED_WIDE if sys.platform != "darwin" else "Core AI")


def test_closing_a_session_ends_its_event_loop(ladder: Path) -> None:
    def loops() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "Core AI"]

    before = len(loops())
    with open_bundle(ladder) as session:
        session.logits(random_pixels(EXPERT, 1))
        assert len(loops()) == before + 1
    assert len(loops()) == before


def test_an_edited_asset_is_refused(ladder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(ladder, tmp_path / "bundle")
    program = bytearray((copy / ASSET / PROGRAM).read_bytes())
    program[-9] ^= 1
    (copy / ASSET / PROGRAM).write_bytes(program)
    with pytest.raises(BundleError, match=PROGRAM):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: b"short", "main.mlirb is no program"),
        (lambda data: data[:-9] + b"\0" * 9, "main.mlirb was changed: its sha256 is not that in main.hash"),
    ],
    ids=["short", "changed"],
)
def test_a_damaged_asset_never_reaches_core_ai(
    ladder: Path, tmp_path: Path, change: Callable[[bytes], bytes], says: str
) -> None:
    """Its reader would abort the process."""
    copy = shutil.copytree(ladder / ASSET, tmp_path / ASSET)
    (copy / PROGRAM).write_bytes(change((copy / PROGRAM).read_bytes()))
    with pytest.raises(BundleError, match=says):
        proof.read_program(copy)
    with pytest.raises(BundleError, match=says):
        Executable(copy)


def test_a_manifest_without_the_asset_is_refused(ladder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(ladder, tmp_path / "bundle")
    fields = json.loads((copy / "manifest.json").read_text())
    fields["target_form"]["functions"] = ["main"]
    (copy / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(BundleError, match="the plan has"):
        open_bundle(copy)


def test_without_the_runtime_opening_names_the_extra(ladder: Path, tmp_path: Path) -> None:
    words = ("verify", ladder, "--checkpoint", ladder.parent / "checkpoint")
    done = without(["coreai", "coreai_torch"], tmp_path, COMMAND, *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        'requires coreai_torch, coreai, which are not installed; run `pip install "morvit-deploy[coreai]"`'
    )


class Bessel(Named):
    inputs, results = ("image",), ("logits",)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.special.bessel_j0(inputs[0])}


def test_a_refused_operation_is_named_with_its_function_and_line() -> None:
    program = convert.Program("fp32", pixels=False)
    with pytest.raises(TargetError) as refused:
        program.add("b0", Bessel(), [torch.zeros(1, 3, 4, 4)])
    message = str(refused.value)
    assert message.startswith("coreai-torch refuses function b0: ")
    assert "aten.special_bessel_j0.default comes from test_export.py, line " in message


def test_another_version_is_named_beside_the_tested_one(
    ladder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At export and when a bundle is opened, which also says what it was written with."""
    assert TARGET.needs.untested(TARGET.needs.export) == ()
    other = {"coreai-core": "1.0.0b9", "coreai-torch": "0.5.0"}
    monkeypatch.setattr("morvit_deploy.exporters.targets.installed", lambda name: other.get(name, "9"))
    found = " ".join(TARGET.needs.untested(TARGET.needs.export))
    for name, version in other.items():
        assert f"{name} {version} is outside the tested range ({TESTED[name]}); test the bundle" in found
    with pytest.warns(
        MorvitWarning, match="coreai-core 1.0.0b9 is outside .*==1.0.0b3.* written with 1.0.0b3"
    ):
        open_bundle(ladder).runner.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dispatch": "graph"}, "in a Core AI asset each bucket is a function"),
        ({"batch": 4}, "a Core AI asset takes one image at a time"),
        ({"precision": "int8"}, "a Core AI asset computes in fp16 or fp32"),
        ({"layout": "bc1s"}, "layout: only target coreml has this; target is 'coreai'"),
        ({"select": "sort"}, "select: got 'sort', expected one of topk, onehot"),
    ],
)
def test_bad_input_is_one_message(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        export(tmp_path / "checkpoint", tmp_path / "out", target="coreai", **options)


@pytest.fixture(scope="module")
def graphs(ladder: Path) -> dict[str, StaticMoRViT]:
    manifest = open_manifest(ladder)
    options = CoreaiExporter().options(manifest, with_depth=True)
    return build_graphs("unrolled", random_model(EXPERT), manifest.plan, options)


@pytest.fixture(scope="module")
def text(ladder: Path) -> str:
    from coreai.authoring import AIModelAsset

    return str(AIModelAsset.load(str(ladder / ASSET)).program)


@pytest.mark.parametrize(
    ("written", "edited", "says"),
    [
        ("@b1(", "@other(", "the asset has the functions"),
        ("coreai.gelu", "coreai.non_zero", "operation non_zero"),
        ('coreai.name = "logits"', 'coreai.name = "scores"', "no function has logits"),
        ("dense<[4, 8]> : tensor<2xsi32>", "dense<[4, 9]> : tensor<2xsi32>", "the plan says [4, 8]"),
        ("coreai.conv2d", "coreai.conv3d", "'patch_embed.proj' is applied 0 times|is applied 0 times"),
    ],
)
def test_an_edited_program_is_found(
    ladder: Path,
    graphs: dict[str, StaticMoRViT],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    edited: str,
    says: str,
) -> None:
    assert written in text
    monkeypatch.setattr(proof, "read_program", lambda asset: ProgramText(text.replace(written, edited)))
    found = proof.prove(ladder, open_manifest(ladder), graphs).violations
    assert any(part in violation for violation in found for part in says.split("|")), found
