"""Bundles below fp32 through export, verify, predict and bench: what must be kept, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from onnx import external_data_helper
from places import EXAMPLES
from safetensors.torch import load_file, save_file
from tiny_models import make_config, random_model, random_pixels
from trt_reader import tensorrt_complaints

from morvit_deploy import bench, export, open_bundle
from morvit_deploy.bundle.manifest import Manifest, describe_files, open_manifest
from morvit_deploy.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    ParityError,
    PlanError,
    PrecisionError,
)
from morvit_deploy.exporters import base
from morvit_deploy.exporters.api import held_apart
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.low import lower
from morvit_deploy.exporters.onnx.low.speed import Speed, overall_ratio
from morvit_deploy.exporters.verification import verify
from morvit_deploy.machine import integer_kernels
from morvit_deploy.machine.integer_kernels import IntegerKernels, kernels_here
from morvit_deploy.measuring.payoff.rounds import payoff
from morvit_deploy.model.answers.gates import ALL_FP16, GATES, Gate, gate_for
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan
from morvit_deploy.verifying.findings import Fidelity, Gap
from morvit_deploy.verifying.outcome import Verification

INT8_SNR_DB = (
    12.0  # of a random model of 16 channels, where one decision moves all; trained ones have 35 and more
)
FP16_SNR_DB = 40.0
WIDE: dict[str, Any] = {"embed_dim": 64, "mlp_dim": 128, "num_heads": 4}
Exported = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def no_clock() -> Any:
    """Timings have no place in tests: every speed check answers the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            lower,
            "measure_speed",
            lambda floats, integers, plan, feeds: {b.name: Speed(2.0, 1.0, 0.5) for b in plan.buckets},
        )
        yield


def lowered(
    exported: Exported, images: Path, config: Config, plan: Plan | None = None, **options: Any
) -> Path:
    """A bundle that is let through, as random models keep less than trained ones."""
    return exported(config, plan=plan, images=images, allow_worse=True, limit=12, **options)


CASES: dict[str, tuple[Config, Plan | None, dict[str, Any]]] = {
    "one bucket": (make_config(**WIDE), None, {}),
    "smoothed": (make_config(**WIDE), None, {"smooth": True, "calibration": "percentile"}),
    "for TensorRT": (make_config(**WIDE), None, {"int8_flavor": "trt", "calibration": "entropy"}),
    "a batch": (make_config(), None, {"batch": 3, "with_depth": True}),
    "any batch": (make_config(attention_scope="all"), None, {"batch": "dynamic"}),
    "no routing": (make_config(routing="none", head_hidden=[14]), None, {"smooth": True}),
    "a cycle alone": (make_config(sharing="cycle", cycle_depth=2, gate="delta"), None, {"smooth": True}),
    "float input": (make_config(), None, {"input": "float"}),
    "thresholds, in the graph": (EXPERT, threshold_ladder(), {"with_depth": True}),
    "thresholds, by the host": (EXPERT, threshold_ladder(), {"dispatch": "host", "batch": "dynamic"}),
    "thresholds, for TensorRT": (EXPERT, threshold_ladder(), {"int8_flavor": "trt"}),
    "depths, in the graph": (TOKEN, depth_ladder(), {"smooth": True}),
    "depths, by the host": (TOKEN, depth_ladder(), {"dispatch": "host"}),
}


@pytest.mark.parametrize("case", CASES)
def test_int8_keeps_its_promises(exported: Exported, calibration_folder: Path, case: str) -> None:
    config, plan, options = CASES[case]
    bundle = lowered(exported, calibration_folder, config, plan, precision="int8", **options)
    manifest = open_manifest(bundle)
    assert manifest.precision == "int8" and manifest.structure["proved"]
    assert manifest.macs == {bucket.name: bucket.macs for bucket in manifest.plan.buckets}
    lowering = manifest.lowering
    assert lowering is not None and lowering.flavor == options.get("int8_flavor", "cpu")
    assert lowering.images == 48 - 12, "those that verify is to see are not calibrated on"
    assert set(lowering.buckets) == {*manifest.macs} | ({"stem"} if manifest.plan.adaptive else set())
    here = kernels_here()
    assert lowering.weight_bits == (here.weight_bits if lowering.flavor == "cpu" else 8)
    assert lowering.instruction_set == here.instruction_set
    result = verify(
        bundle, bundle.parent / "checkpoint", images=calibration_folder, limit=12, min_agreement=0.0
    )
    assert result.passed, result.failure
    assert (result.precision, result.gate) == ("int8", Gate(0.0, 0.0))
    assert result.warnings == () and ("do not saturate" in result.runtime) == (lowering.flavor == "trt")
    for seen in result.fidelity:
        assert seen.images == 12 and INT8_SNR_DB < seen.snr_db < 60
    json.dumps(result.as_dict(), allow_nan=False)
    with open_bundle(bundle, threads=1) as session:
        assert session.logits(random_pixels(config, 5)).shape == (5, config.num_classes)


def test_int8_is_a_quarter(exported: Exported, calibration_folder: Path) -> None:
    """The weights; a tiny model's graph would outweigh them."""
    config = make_config(embed_dim=128, mlp_dim=256, num_heads=4)
    whole = open_manifest(exported(config)).structure["weight_bytes"]
    bundle = lowered(exported, calibration_folder, config, precision="int8")
    assert open_manifest(bundle).structure["weight_bytes"] < 0.32 * whole


@pytest.mark.parametrize(
    ("config", "plan", "options"),
    [
        (make_config(**WIDE), None, {}),
        (make_config(), None, {"input": "float", "batch": "dynamic"}),
        (EXPERT, threshold_ladder(), {"batch": 3}),
        (TOKEN, depth_ladder(), {"dispatch": "host", "with_depth": True}),
    ],
    ids=["one bucket", "any batch", "thresholds", "depths, by the host"],
)
def test_fp16_keeps_its_promises(
    exported: Exported, calibration_folder: Path, config: Config, plan: Plan | None, options: dict[str, Any]
) -> None:
    bundle = lowered(exported, calibration_folder, config, plan, precision="fp16", **options)
    manifest = open_manifest(bundle)
    assert manifest.precision == "fp16" and manifest.structure["proved"]
    assert manifest.lowering is not None
    facts = manifest.lowering.facts
    assert facts["values_probed"] > 20 and 0 < max(facts["largest_activations"].values()) < 65504
    assert all(port.dtype != "float16" for port in (*manifest.inputs, *manifest.outputs, *manifest.carried))
    result = verify(
        bundle, bundle.parent / "checkpoint", images=calibration_folder, limit=32, min_agreement=0.9
    )
    assert result.passed, result.failure
    assert all(seen.snr_db > FP16_SNR_DB for seen in result.fidelity)


def test_fp16_without_images_is_not_probed(exported: Exported) -> None:
    manifest = open_manifest(exported(make_config(), precision="fp16", min_agreement=0.9))
    assert manifest.lowering is not None and manifest.lowering.facts == {}


def test_an_fp16_overflow_names_its_node(calibration_folder: Path, tmp_path: Path) -> None:
    model = random_model(make_config())
    weight = dict(model.named_parameters())["cycle.0.mlp.fc1.weight"]
    weight.mul_(3e4)
    save_checkpoint(model, tmp_path / "checkpoint")
    options: dict[str, Any] = {"precision": "fp16", "images": calibration_folder}
    with pytest.raises(CheckpointError, match=r"node '(MatMul|Gemm)_\d+'.*65504: export in fp32"):
        export(tmp_path / "checkpoint", tmp_path / "out", **options)
    weight.mul_(1e3)
    save_checkpoint(model, tmp_path / "beyond")
    with pytest.raises(CheckpointError, match=r"cycle_0\.fc1: got a weight of magnitude"):
        export(tmp_path / "beyond", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize("model", ["digits-expert", "digits-token"])
def test_a_trained_model_passes_its_gate(model: str, precision: str, tmp_path: Path) -> None:
    """Calibrated on 100 of the shipped pictures and judged on 100 others, without being let through."""
    options: dict[str, Any] = {"precision": precision, "images": EXAMPLES / "digits-test", "limit": 100}
    exported = export(EXAMPLES / model, tmp_path / "out", **options)
    assert exported.verification.passed and exported.verification.gate == GATES[precision]
    assert exported.manifest.lowering is not None and exported.manifest.lowering.accepted == ()
    (seen,) = exported.verification.fidelity
    assert seen.snr_db > {"int8": 30, "fp16": 60}[precision]
    few = verify(tmp_path / "out", EXAMPLES / model, images=EXAMPLES / "digits-test", limit=32)
    assert few.passed, few.failure


def test_a_head_bias_of_30_fails_in_fp16(
    exported: Exported, calibration_folder: Path, tmp_path: Path
) -> None:
    """The numbers tell by themselves, whatever the structure proof finds."""
    config, plan, options = CASES["one bucket"]
    good = lowered(exported, calibration_folder, config, plan, precision="fp16", **options)
    bundle = Path(shutil.copytree(good, tmp_path / "bundle"))
    model = onnx.load(bundle / "model.onnx")
    bias = next(init for init in model.graph.initializer if list(init.dims) == [config.num_classes])
    array = onnx.numpy_helper.to_array(bias)
    bias.CopyFrom(onnx.numpy_helper.from_array((array + 30).astype(array.dtype), bias.name))
    onnx.save_model(model, bundle / "model.onnx")

    fields = json.loads((bundle / "manifest.json").read_text())
    fields["files"] = [file.model_dump() for file in describe_files(bundle, ["model.onnx", "weights.bin"])]
    (bundle / "manifest.json").write_text(json.dumps(fields))
    result = verify(bundle, good.parent / "checkpoint", min_agreement=0.0)
    assert not result.passed
    assert "got a signal-to-noise ratio of -" in result.failure


def test_a_trained_model_for_tensorrt_is_not_judged_by_this_cpus_kernels(tmp_path: Path) -> None:
    """8-bit weights keep the gate on every machine: their products are summed as TensorRT sums them."""
    options: dict[str, Any] = {"precision": "int8", "images": EXAMPLES / "digits-test", "limit": 100}
    exported = export(EXAMPLES / "digits-token", tmp_path / "out", int8_flavor="trt", **options)
    assert exported.verification.passed and exported.verification.gate == GATES["int8"]
    assert "do not saturate" in exported.verification.runtime
    (seen,) = exported.verification.fidelity
    assert seen.snr_db > 30


def test_eight_bit_weights_on_a_saturating_processor_are_warned_of(
    tiny_checkpoint: Path, calibration_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integer_kernels, "kernels_here", lambda: IntegerKernels("avx512_vnni", False))
    options: dict[str, Any] = {"precision": "int8", "images": calibration_folder, "allow_worse": True}
    export(tiny_checkpoint, tmp_path / "out", **options)
    assert verify(tmp_path / "out", tiny_checkpoint).warnings == ()
    monkeypatch.setattr(integer_kernels, "kernels_here", lambda: IntegerKernels("avx2", True))
    result = verify(tmp_path / "out", tiny_checkpoint)
    assert result.structure["proved"]
    assert result.as_dict()["warnings"] == list(result.warnings)
    (warning,) = result.warnings
    assert "8-bit weights" in warning and "no VNNI" in warning


# refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int8"}, "only images like those it will meet show it: give --images DIR"),
        ({"precision": "int4"}, "got 'int4', expected one of fp32, fp16, int8"),
        ({"smooth": True, "max_drop": 1.0}, "smooth, max_drop: only int8 has this; precision is 'fp32'"),
        ({"precision": "fp16", "calibration": "entropy"}, "calibration: only int8"),
        ({"precision": "fp16", "form": "masked"}, "baselines are exported in fp32"),
        ({"allow_worse": True}, "fp32 has no gate"),
        ({"calibration_limit": 0}, "calibration_limit: got 0"),
    ],
    ids=str,
)
def test_bad_options_are_one_message(
    tiny_checkpoint: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        export(tiny_checkpoint, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_broken_drop_is_refused(tiny_checkpoint: Path, calibration_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_drop: got -1"):
        export(tiny_checkpoint, tmp_path / "out", precision="int8", images=calibration_folder, max_drop=-1)


def test_a_missed_gate_is_refused_and_can_be_let_through(
    tiny_checkpoint: Path, calibration_folder: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"precision": "int8", "images": calibration_folder, "min_agreement": 1.0}
    options["calibration_limit"] = 1  # ranges that other images leave
    with pytest.raises(PrecisionError, match=r"got token agreement .*, expected at least 100\.00%"):
        export(tiny_checkpoint, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    manifest = export(tiny_checkpoint, tmp_path / "out", allow_worse=True, **options).manifest
    assert manifest.lowering is not None and any(
        "token agreement" in line for line in manifest.lowering.accepted
    )
    assert manifest.parity is not None and manifest.parity["passed"] is False


def test_a_slow_int8_bundle_is_refused_and_can_be_let_through(
    tiny_checkpoint: Path, calibration_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lower, "overall_ratio", lambda speeds, plan: 1.25)
    options: dict[str, Any] = {"precision": "int8", "images": calibration_folder, "min_agreement": 0.0}
    with pytest.raises(PrecisionError, match=r"int8 takes 1\.25 times as long as fp32 on this machine"):
        export(tiny_checkpoint, tmp_path / "out", **options)
    manifest = export(tiny_checkpoint, tmp_path / "out", allow_worse=True, **options).manifest
    assert manifest.lowering is not None
    assert manifest.lowering.accepted == ("int8 takes 1.25 times as long as fp32 on this machine",)
    trt = export(tiny_checkpoint, tmp_path / "trt", int8_flavor="trt", **options).manifest
    assert trt.lowering is not None and "speed" not in trt.lowering.facts, "not this machine's to tell"


def test_only_the_gate_can_be_let_through(
    tiny_checkpoint: Path, calibration_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        base, "compare", lambda *arguments, **calls: verification(unrolling_gap=Gap(1.0, 1e-9, 1.0))
    )
    with pytest.raises(ParityError, match="unrolling gap"):
        export(
            tiny_checkpoint, tmp_path / "out", precision="int8", images=calibration_folder, allow_worse=True
        )


def test_unlikely_calibration_images_are_told(
    tiny_checkpoint: Path, tmp_path: Path, calibration_folder: Path
) -> None:
    from PIL import Image

    folder = tmp_path / "white"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (36, 36), (250 + number, 255, 255)).save(folder / f"{number}.png")
    options: dict[str, Any] = {"precision": "int8", "allow_worse": True}
    white = export(tiny_checkpoint, tmp_path / "out", images=folder, **options).manifest.lowering
    assert white is not None and "have mean (0.9" in white.facts["remarks"][0]
    likely = export(
        tiny_checkpoint, tmp_path / "likely", images=calibration_folder, **options
    ).manifest.lowering
    assert likely is not None and "mean" not in str(likely.facts.get("remarks"))


def test_lifted_layers_stay_in_float(tiny_checkpoint: Path, calibration_folder: Path, tmp_path: Path) -> None:
    manifest = export(
        tiny_checkpoint,
        tmp_path / "out",
        precision="int8",
        images=calibration_folder,
        max_drop=0.0,
        allow_worse=True,
    ).manifest
    assert manifest.lowering is not None and manifest.structure["proved"]
    found = manifest.lowering.facts["sensitivity"]
    after = [one["after"] for one in found["layers"] if one["after"]]
    assert len(after) == len(manifest.lowering.lifted)
    assert found["met"]
    model = onnx.load(tmp_path / "out" / "model.onnx")
    kinds = {init.name: init.data_type for init in model.graph.initializer}
    for layer in manifest.lowering.lifted:
        assert kinds[f"{layer}.weight"] == onnx.TensorProto.FLOAT


# the proof -------------------------------------------------------------------------------------------------


def edited(bundle: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a bundle with another manifest."""
    import shutil

    copy = Path(shutil.copytree(bundle, folder / "copy"))
    fields = json.loads((copy / "manifest.json").read_text())
    change(fields)
    (copy / "manifest.json").write_text(json.dumps(fields))
    return copy


def test_verify_knows_a_manifest_that_tells_another_story(
    exported: Exported, calibration_folder: Path, tmp_path: Path
) -> None:
    config, plan, options = CASES["smoothed"]
    bundle = lowered(exported, calibration_folder, config, plan, precision="int8", **options)
    checkpoint = bundle.parent / "checkpoint"

    def unsmoothed(fields: dict[str, Any]) -> None:
        fields["lowering"]["smoothing"] = {}

    result = verify(edited(bundle, tmp_path / "a", unsmoothed), checkpoint)
    assert any("stands for no weight of the model" in line for line in result.structure["violations"])

    def lifted(fields: dict[str, Any]) -> None:
        fields["lowering"]["lifted"] = ["cycle.0.fc1"]

    result = verify(edited(bundle, tmp_path / "b", lifted), checkpoint)
    assert "weight 'cycle.0.fc1.weight' is stored as int8, expected float" in "\n".join(
        result.structure["violations"]
    )

    def foreign(fields: dict[str, Any]) -> None:
        fields["lowering"]["smoothing"] = {"nowhere": [0]}

    with pytest.raises(BundleError, match="the manifest was edited"):
        verify(edited(bundle, tmp_path / "c", foreign), checkpoint)

    def whole(fields: dict[str, Any]) -> None:
        fields["precision"] = "fp32"

    with pytest.raises(BundleError, match="lowering: expected below fp32"):
        open_manifest(edited(bundle, tmp_path / "d", whole))


def test_verify_finds_another_checkpoints_integers(
    exported: Exported, calibration_folder: Path, tmp_path: Path
) -> None:
    config, plan, options = CASES["one bucket"]
    bundle = lowered(exported, calibration_folder, config, plan, precision="int8", **options)
    save_checkpoint(random_model(config), tmp_path / "checkpoint")
    tensors = load_file(tmp_path / "checkpoint" / "model.safetensors")
    tensors["cycle.0.mlp.fc1.weight"][3, 5] += 0.5
    save_file(tensors, tmp_path / "checkpoint" / "model.safetensors")
    result = verify(bundle, tmp_path / "checkpoint")
    assert not result.structure["proved"]
    assert "'cycle.0.fc1.weight'" in result.structure["violations"][0]


# gates -----------------------------------------------------------------------------------------------------


def verification(**changes: Any) -> Verification:
    gap = Gap(0.0, 1e-9, 1.0)
    seen = Fidelity("topk", 64, 30.0, [0.995, 1.0], [], [[], []], tokens=64 * 64, median_snr_db=30.0)
    whole = Verification(
        {"proved": True, "violations": []}, gap, Gap(0.3, float("inf"), 1.0), [0.98, 1.0], 64, 0, False,
        precision="int8", gate=GATES["int8"], fidelity=[seen],
    )  # fmt: skip  # a table of positional facts
    return replace(whole, **changes)


def test_a_gate_judges_tokens_and_classes() -> None:
    good = verification()
    assert good.passed and not good.only_gate_missed
    (seen,) = good.fidelity
    worse = replace(good, fidelity=[replace(seen, token_agreement=[0.995, 0.98])])
    assert not worse.passed and worse.only_gate_missed
    assert "step 2: got token agreement 98.00%, expected at least 99.00%" in worse.failure
    flips = replace(good, fidelity=[replace(seen, flips=[0.1, 0.2, 0.1, 0.3])])
    assert not flips.passed and "4 of 64 images change their class, expected at most 3" in flips.failure
    assert replace(good, fidelity=[replace(seen, flips=[0.1])]).passed, "of 64 images, one is no share of 1 %"
    noisy = replace(good, fidelity=[replace(seen, median_snr_db=20.0)])
    assert not noisy.passed and noisy.only_gate_missed
    assert (
        "got a signal-to-noise ratio of 20.0 dB (median of the images), expected at least 24.0"
        in noisy.failure
    )
    few = replace(good, images=10)
    assert (
        not few.passed
        and few.only_gate_missed
        and few.failure.startswith("too few images to judge int8: got 10")
    )
    nan = replace(good, gate=Gate(0.0, 0.0), fidelity=[replace(seen, snr_db=float("-inf"))])
    assert not nan.passed and not nan.only_gate_missed
    broken = replace(good, structure={"proved": False, "violations": []})
    assert not broken.passed and not broken.only_gate_missed


def test_gates_of_precisions() -> None:
    assert gate_for("fp32", 0.5) is None
    for precision, share, snr_db in (("int8", 0.99, 24), ("fp16", 0.999, 55), (ALL_FP16, 0.995, 52)):
        assert gate_for(precision, None) == Gate(share, share, snr_db)
    assert gate_for("int8", 0.9) == Gate(0.9, 0.9, pytest.approx(10.0)), (
        "the error may have a tenth of the power"
    )
    assert gate_for("int8", 1.0) == Gate(1.0, 1.0, 24), "and never more than in int8"
    assert gate_for("int8", 0.0) == Gate(0.0, 0.0)


def test_a_processor_that_sums_in_16_bits_is_told_of() -> None:
    told = lower.remark_on_kernels(("avx2", "avx512f"))
    assert told is not None and "no VNNI" in told
    for sets in (("avx2", "avx_vnni"), ("avx2", "avx512f", "avx512_vnni"), ("asimd", "asimddp"), ()):
        assert lower.remark_on_kernels(sets) is None


def test_the_overall_ratio_is_of_the_mix() -> None:
    speeds = {"b0": Speed(1.0, 2.0, 2.0), "b1": Speed(1.0, 1.0, 1.0), "full": Speed(8.0, 4.0, 0.5)}
    assert overall_ratio(speeds, threshold_ladder()) == pytest.approx((0.5 * 2 + 0.3 + 0.2 * 4) / (0.8 + 1.6))


def test_images_to_judge_are_not_those_to_fit(calibration_folder: Path) -> None:
    from morvit_deploy.bundle.images import open_images

    folder = open_images(calibration_folder, EXPERT)
    judged, fitted = held_apart(folder, 12, 100)
    assert (len(judged), len(fitted)) == (12, 36) and not set(judged.entries) & set(fitted.entries)
    judged, fitted = held_apart(folder, 30, 100)
    assert (len(judged), len(fitted)) == (30, 48), "too few for both: ranges see all of them"


def test_bench_takes_both(exported: Exported, calibration_folder: Path) -> None:
    config, plan, options = CASES["one bucket"]
    int8 = lowered(exported, calibration_folder, config, plan, precision="int8", **options)
    result = bench([int8, exported(config)], runs=10, blocks=2, starts=1, threads=1)
    assert [one.precision for one in result.measured] == ["int8", "fp32"]


def test_a_verdict_is_of_adaptivity_and_not_of_precisions(
    exported: Exported, calibration_folder: Path
) -> None:
    config, plan, options = CASES["thresholds, in the graph"]
    bundle = lowered(exported, calibration_folder, config, plan, precision="int8", **options)
    with pytest.raises(PlanError, match="give the fp32 bundle of the same plan"):
        payoff(bundle, bundle.parent / "checkpoint")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize("case", ["for TensorRT", "thresholds, for TensorRT"])
def test_tensorrt_reads_it(exported: Exported, calibration_folder: Path, case: str, precision: str) -> None:
    config, plan, options = CASES[case]
    options = {"int8_flavor": "trt"} if precision == "int8" else {}
    bundle = lowered(exported, calibration_folder, config, plan, precision=precision, **options)
    assert tensorrt_complaints(bundle) == []


def test_weights_beside_their_branch_are_in_the_file_once(
    exported: Exported, calibration_folder: Path
) -> None:
    config, plan, options = CASES["thresholds, for TensorRT"]
    bundle = lowered(exported, calibration_folder, config, plan, precision="int8", **options)
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    places: dict[str, set[int]] = {}
    for graph in every_graph(model.graph):
        for init in graph.initializer:
            if init.data_type == onnx.TensorProto.INT8 and external_data_helper.uses_external_data(init):
                place = external_data_helper.ExternalDataInfo(init)
                places.setdefault(init.name.rpartition("/")[2], set()).add(place.offset)
    assert places and all(len(offsets) == 1 for offsets in places.values())


def test_reading_a_manifest_back(exported: Exported, calibration_folder: Path) -> None:
    config, plan, options = CASES["smoothed"]
    bundle = lowered(exported, calibration_folder, config, plan, precision="int8", **options)
    manifest = open_manifest(bundle)
    assert Manifest.model_validate_json(manifest.to_json()) == manifest
