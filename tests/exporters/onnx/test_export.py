"""Target `onnx`: what ONNX Runtime answers against the float64 reference, and what the written files hold."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from config_matrix import REDUCING, named
from faster_export import traced_anew
from flat_models import CLS_RUNS, wandering_model
from onnx import numpy_helper
from tiny_models import make_config, normalised, random_model, random_pixels
from trt_reader import tensorrt_complaints

from morvit_deploy import export, open_bundle
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.exporters.onnx.graphs.branches import INLINE_BYTES
from morvit_deploy.exporters.onnx.graphs.portable import OPSET
from morvit_deploy.model.checkpoint import init_model, save_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.presets import preset
from morvit_deploy.model.trace import Outcome

LOGITS = 1e-4  # × max(1, max |logit|): float32 against float64 over some layers
MARGIN = 1e-4  # router logits closer than this may swap places by float32 round-off
Exported = Callable[..., Path]

BASIC: list[dict[str, Any]] = [
    {"gate": "block", "sharing": "none", "attention_scope": "active"},
    {"gate": "delta", "sharing": "none", "attention_scope": "all"},
    {"gate": "hard", "sharing": "cycle", "attention_scope": "active"},
    {"gate": "block", "sharing": "cycle", "attention_scope": "all"},
    {"gate": "delta", "sharing": "middle_cycle", "attention_scope": "active"},
    {"gate": "block", "sharing": "middle_cycle", "attention_scope": "all", "cycle_depth": 2},
    {"routing": "expert_choice_flat", "capacity": [17, 5, 17], "router": {"hidden": [12], "shared": True}},
    {"routing": "expert_choice_flat", "capacity": [1, 17, 16], "cycle_depth": 2},
    {"routing": "token_choice", "sharing": "none", "attention_scope": "active"},
    {"routing": "token_choice", "sharing": "cycle", "attention_scope": "all"},
    {"routing": "token_choice", "sharing": "middle_cycle", "attention_scope": "active"},
    {"routing": "token_choice", "sharing": "middle_cycle", "attention_scope": "all"},
    *REDUCING,
    {"routing": "none", "sharing": "none"},
    {"routing": "none", "sharing": "cycle"},
    {"routing": "none", "sharing": "middle_cycle"},
    {"capacity": [16, 4, 4], "router": {"hidden": [12, 10], "activation": "tanh", "shared": True, "alpha": 0.8}},
    {"capacity": [1, 1, 1], "activation": "gelu_tanh", "head_hidden": [14], "sharing": "cycle"},
    {"activation": "relu", "qkv_bias": False, "router": {"bias": False}, "norm_eps": 1e-3},
]  # fmt: skip
BATCHED: list[dict[str, Any]] = [
    {"attention_scope": "active"},
    {"attention_scope": "all", "gate": "delta"},
    {"routing": "expert_choice_flat"},
    {"routing": "token_choice", "attention_scope": "active"},
    REDUCING[1],
    REDUCING[4],
]
SIZES = (1, 3, 5)


def judge(config: Config, pixels: np.ndarray, seed: int = 0) -> Outcome:
    """The float64 reference with the weights of `exported(config, seed)`."""
    return random_model(config, seed).double()(normalised(config, pixels))


def assert_answers(bundle: Path, config: Config, count: int) -> None:
    """ONNX Runtime's logits, classes and depths for `count` pictures are the reference's."""
    pixels = random_pixels(config, count, seed=11)
    outcome = judge(config, pixels)
    clear = np.array([trace.margin > MARGIN for trace in outcome.traces])
    assert clear.all(), "choose another seed: these pictures sit on a routing boundary"
    with open_bundle(bundle, threads=1) as session:
        answer = session.run(pixels)
    expected = outcome.logits.numpy()
    assert answer["logits"].dtype == np.float32
    assert np.abs(answer["logits"] - expected).max() <= LOGITS * max(1, np.abs(expected).max())
    assert (answer["logits"].argmax(axis=1) == expected.argmax(axis=1)).all()
    if "depth" in answer:
        assert answer["depth"].dtype == np.uint8
        assert answer["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("changes", BASIC, ids=named)
def test_one_image(exported: Exported, changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    with_depth = config.capacity is not None
    assert_answers(exported(config, with_depth=with_depth), config, 4)


@pytest.mark.parametrize("changes", BATCHED, ids=named)
def test_a_fixed_batch_of_four_takes_any_number(exported: Exported, changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    bundle = exported(config, batch=4, with_depth=True)
    for count in SIZES:
        assert_answers(bundle, config, count)


@pytest.mark.parametrize("changes", [*BATCHED, {"routing": "none"}], ids=named)
def test_a_dynamic_batch(exported: Exported, changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    bundle = exported(config, batch="dynamic", with_depth=config.routing != "none")
    for count in SIZES:
        assert_answers(bundle, config, count)


@pytest.mark.parametrize("batch", [1, "dynamic"])
def test_cls_and_patches_that_come_back(tmp_path: Path, batch: int | str) -> None:
    model = wandering_model()
    save_checkpoint(model, tmp_path / "checkpoint")
    found = export(tmp_path / "checkpoint", tmp_path / "out", batch=batch, with_depth=True).verification
    assert found.passed and found.router_agreement == [1.0, 1.0, 1.0]
    assert found.images - found.ambiguous >= 3
    pixels = random_pixels(model.config, 3, seed=11)
    outcome = model.double()(normalised(model.config, pixels))
    assert outcome.runs[:, :, 0].all(dim=1).tolist() == [*CLS_RUNS]
    with open_bundle(tmp_path / "out", threads=1) as session:
        answer = session.run(pixels)
    assert answer["depth"].tolist() == outcome.depth.tolist()
    assert np.abs(answer["logits"] - outcome.logits.numpy()).max() <= LOGITS * max(
        1, outcome.logits.abs().max()
    )


@pytest.mark.parametrize("batch", [1, "dynamic"])
def test_float_input(exported: Exported, batch: int | str) -> None:
    config = make_config()
    bundle = exported(config, input="float", batch=batch)
    manifest = open_manifest(bundle)
    assert manifest.inputs[0].dtype == "float32"
    assert manifest.inputs[0].shape[1:] == (3, 32, 32)
    assert_answers(bundle, config, 3)


@pytest.mark.parametrize("form", ["masked", "gather_scatter"])
@pytest.mark.parametrize(
    "changes",
    [
        {"attention_scope": "all", "gate": "delta"},
        {"routing": "expert_choice_flat", "capacity": [17, 16, 5]},  # nobody reads the first router
    ],
    ids=named,
)
def test_the_baseline_forms_answer_the_same(exported: Exported, changes: dict[str, Any], form: str) -> None:
    config = make_config(**changes)
    assert_answers(exported(config, form=form), config, 3)


def test_nothing_is_put_back_at_a_step_that_everyone_runs(exported: Exported) -> None:
    config = make_config(routing="expert_choice_flat", capacity=[17, 16, 5])
    manifest = open_manifest(exported(config, form="gather_scatter"))
    assert manifest.structure["operators"]["ScatterElements"] == 2


def test_interfaces(tiny_bundle: Path) -> None:
    manifest = open_manifest(tiny_bundle)
    assert [(p.name, p.dtype, p.shape) for p in manifest.inputs] == [("image", "uint8", (1, 32, 32, 3))]
    outputs = {p.name: (p.dtype, p.shape) for p in manifest.outputs}
    assert outputs == {"logits": ("float32", (1, 10)), "depth": ("uint8", (1, 16))}


def test_only_the_batch_is_dynamic(exported: Exported) -> None:
    manifest = open_manifest(exported(make_config(), batch="dynamic", with_depth=True))
    assert [p.shape[0] for p in (*manifest.inputs, *manifest.outputs)] == ["batch"] * 3
    assert all(isinstance(dim, int) for p in (*manifest.inputs, *manifest.outputs) for dim in p.shape[1:])


def test_the_written_file_is_plain(tiny_bundle: Path) -> None:
    path = tiny_bundle / "model.onnx"
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path, load_external_data=False)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)] == [("", 18)]
    assert model.ir_version == 8
    assert not model.metadata_props and not model.functions and not model.doc_string
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert b".py" not in path.read_bytes(), "where the exporter's code lies is nobody's business"


def test_all_data_is_in_one_file(tiny_bundle: Path) -> None:
    assert {p.name for p in tiny_bundle.iterdir()} == {"manifest.json", "model.onnx", "weights.bin"}
    for init in onnx.load(tiny_bundle / "model.onnx", load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in init.external_data}
        if place:
            assert place["location"] == "weights.bin"
        else:
            assert numpy_helper.to_array(init).nbytes < INLINE_BYTES


@pytest.mark.parametrize("changes", [{}, {"attention_scope": "all"}, {"routing": "token_choice"}], ids=named)
def test_each_weight_is_stored_once(exported: Exported, changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    options = {"with_depth": True} if changes != {"attention_scope": "all"} else {}
    model = onnx.load(exported(config, **options) / "model.onnx")
    weights = [init for init in model.graph.initializer if numpy_helper.to_array(init).nbytes >= INLINE_BYTES]
    contents = [numpy_helper.to_array(init).tobytes() for init in weights]
    assert len(set(contents)) == len(contents)
    products = [
        p for name, p in random_model(config).named_parameters() if p.ndim > 1 and "router" not in name
    ]
    folded = config.embed_dim * 2  # CLS and its position are small, or one constant
    assert abs(sum(len(c) for c in contents) / 4 - sum(p.numel() for p in products)) <= 8 * folded


@pytest.mark.parametrize("form", ["unrolled", "masked", "gather_scatter"])
@pytest.mark.parametrize("shared", [False, True], ids=["own routers", "one router"])
def test_a_router_that_nobody_reads_is_left_out(tmp_path: Path, shared: bool, form: str) -> None:
    """With a hard gate, a step that nobody leaves has no use for its router; counts and proof know it."""
    router = {**make_config().router.model_dump(mode="json"), "shared": shared}
    config = make_config(gate="hard", capacity=[16, 8, 8], router=router)
    save_checkpoint(random_model(config), tmp_path / "checkpoint")
    exported = export(tmp_path / "checkpoint", tmp_path / "out", form=form)
    assert exported.verification.passed
    assert exported.manifest.structure["proved"]
    scatters = exported.manifest.structure["operators"].get("ScatterElements", 0)
    assert scatters == (2 if form == "gather_scatter" else 0), "where everyone runs, nothing is put back"


def test_exporting_twice_gives_the_same_bytes(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    with traced_anew():
        export(tiny_checkpoint, tmp_path / "again", with_depth=True)
    for name in ("model.onnx", "weights.bin", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tiny_bundle / name).read_bytes(), name


def test_exporting_in_another_process_gives_the_same_bytes(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Sets are ordered by a hash that changes from process to process."""
    arguments = ["export", tiny_checkpoint, "-o", tmp_path / "out", "--with-depth"]
    script = "from morvit_deploy.cli import main; main()"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], check=True, env=environment, capture_output=True
    )
    for name in ("model.onnx", "weights.bin", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tiny_bundle / name).read_bytes(), name


@pytest.mark.slow
def test_morvit_b16_keeps_its_bars(tmp_path: Path) -> None:
    """The whole way with 22.8 M parameters: MACs and weights counted from the written file."""
    config = preset("morvit_b16")
    save_checkpoint(init_model(config), tmp_path / "checkpoint")
    manifest = export(tmp_path / "checkpoint", tmp_path / "out").manifest
    assert manifest.checkpoint.parameters == 22_784_498
    assert manifest.macs["topk"] <= 2.89e9
    assert manifest.structure["block_applications"] == {"first": 1, "cycle.0": 10, "last": 1}
    files = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert files <= 1.02 * 4 * manifest.checkpoint.parameters + 500_000


@pytest.mark.parametrize("changes", [*BASIC, {"routing": "none", "register_tokens": 2}], ids=named)
def test_tensorrt_reads_one_image(exported: Exported, changes: dict[str, Any]) -> None:
    assert tensorrt_complaints(exported(make_config(**changes)), build=False) == []


@pytest.mark.parametrize("changes", BATCHED, ids=named)
def test_tensorrt_reads_a_fixed_batch(exported: Exported, changes: dict[str, Any]) -> None:
    assert tensorrt_complaints(exported(make_config(**changes), batch=4, with_depth=True)) == []
