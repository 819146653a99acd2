"""Small comparisons: bundles beside graphs, what is refused, what is kept in the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from bucket_plans import EXPERT, threshold_ladder
from comparisons import conv_graph
from onnx import TensorProto
from third_party import third_party
from tiny_models import make_config, make_fields

import morvit_deploy as md
from morvit_deploy.errors import BundleError, CheckpointError, ConfigError, TargetError
from morvit_deploy.measuring.compare.baselines import exporting
from morvit_deploy.measuring.compare.baselines.exporting import RECORD
from morvit_deploy.measuring.compare.baselines.exporting import exported as export_baseline
from morvit_deploy.measuring.compare.baselines.names import Baseline
from morvit_deploy.measuring.compare.baselines.zoo import build
from morvit_deploy.measuring.compare.candidates import preset_of
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.presets import PRESETS, preset

QUICK: dict[str, Any] = {"threads": 1, "runs": 3, "blocks": 2, "warmup": 1, "starts": 1, "batches": (1,)}
SMALL = "test_vit"  # of timm: 0.4 million parameters, made for tests


def broken_graph(path: Path) -> Path:
    """Which loads as a file and is refused by the runtime."""
    model = onnx.load(conv_graph(path))
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save_model(model, path)
    return path


def test_a_bundle_beside_graphs_and_a_refused_one(tiny_bundle: Path, tmp_path: Path) -> None:
    good, bad = conv_graph(tmp_path / "good.onnx"), broken_graph(tmp_path / "bad.onnx")
    result = md.compare(tiny_bundle, baselines=[good, bad], **QUICK)
    assert [row.name for row in result.measured] == [str(tiny_bundle), str(good)]
    assert all(len(row.blocks) == 2 and len(row.blocks[0].ms) == 3 for row in result.measured)
    graph = result.measured[1]
    assert (graph.parameters, graph.macs, graph.image) == (128, 6_932, 16)
    assert all(row.memory_mib["peak"] > 10 and row.cold_start_ms > 0 for row in result.measured)
    ((refused),) = result.left_out
    assert refused.name == str(bad) and "NoSuchOperator" in refused.reason
    assert result.conditions["parity"][str(tiny_bundle)]["apart"] == 0
    assert result.conditions["seed"] == 0


def test_an_adaptive_bundle_runs_whole_passes(exported: Callable[..., Path]) -> None:
    bundle = exported(EXPERT, plan=threshold_ladder())
    (row,) = md.compare(bundle, **QUICK).measured
    assert row.adaptive and len(row.blocks[0].ms) % 64 == 0
    assert row.macs_by_bucket is not None and row.macs is not None
    assert min(row.macs_by_bucket.values()) <= row.macs <= max(row.macs_by_bucket.values())


def test_ways_of_one_model(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    result = md.compare(
        tiny_bundle, ways=["masked", "eager", "openvino"], checkpoint=tiny_checkpoint, **QUICK
    )
    assert [row.name for row in result.measured] == [
        str(tiny_bundle),
        f"{tiny_bundle} (masked)",
        f"{tiny_bundle} (eager)",
    ]
    assert {*result.conditions["parity"]} == {row.name for row in result.measured}
    bundle, masked, eager = result.measured
    assert bundle.macs is not None and masked.macs is not None and masked.macs > bundle.macs
    assert (masked.runtime, eager.runtime, eager.file_bytes) == ("onnxruntime", "eager", None)
    assert [one.name for one in result.left_out] == [f"{tiny_bundle} (openvino)"]
    assert "pip install openvino" in result.left_out[0].reason


def test_other_precisions_of_the_first_bundle(
    exported: Callable[..., Path], calibration_folder: Path
) -> None:
    bundle = exported(EXPERT, plan=threshold_ladder())
    given = {"ways": ["w8", "fp16", "int8"], "checkpoint": bundle.parent / "checkpoint"}
    result = md.compare(bundle, **given, **QUICK)  # type: ignore[arg-type]
    first, *others = result.measured
    assert [(row.name, row.precision, row.kind) for row in others] == [
        (f"{bundle} ({precision})", precision, "form") for precision in ("w8", "fp16")
    ]
    assert all(row.adaptive and row.published is None for row in others), "the same plan"
    assert others[0].file_bytes is not None and others[0].file_bytes < (first.file_bytes or 0)
    ((refused),) = result.left_out
    assert refused.name == f"{bundle} (int8)" and "'int8' without images" in refused.reason
    given = {"ways": ["int8"], "checkpoint": bundle.parent / "checkpoint", "images": calibration_folder}
    assert [row.precision for row in md.compare(bundle, **given, **QUICK).measured] == ["fp32", "int8"]  # type: ignore[arg-type]


def test_a_precision_that_misses_its_gate_is_measured_with_a_warning(
    tiny_bundle: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morvit_deploy.model.answers import gates

    strict = gates.Gate(0.99, 0.99, 300.0)  # dB
    monkeypatch.setitem(gates.GATES, "w8", strict)
    result = md.compare(tiny_bundle, ways=["w8"], checkpoint=tiny_checkpoint, **QUICK)
    assert [row.precision for row in result.measured] == ["fp32", "w8"]
    assert any("(w8): let through by --allow-worse" in text for text in result.warnings)


def test_the_pictures_of_the_bundles_stay_theirs(
    exported: Callable[..., Path],
) -> None:
    """A further row has a file of pixels of its own, here of fewer pictures than the stream of the bundle."""
    bundle = exported(EXPERT, plan=threshold_ladder())
    first, masked = md.compare(
        bundle, ways=["masked"], checkpoint=bundle.parent / "checkpoint", **QUICK
    ).measured
    assert first.adaptive and len(first.blocks[0].ms) == 64 and not masked.adaptive


def test_what_goes_with_what(tiny_bundle: Path, tiny_checkpoint: Path, exported: Callable[..., Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"with: got 'maksed', expected some of masked, .*did you mean 'masked'"
    ):
        md.compare(tiny_bundle, ways=["maksed"])
    with pytest.raises(ConfigError, match="masked run the checkpoint; give the one"):
        md.compare(tiny_bundle, ways=["masked"])
    with pytest.raises(ConfigError, match="checkpoint: is for the rows masked, eager, compile, fp16"):
        md.compare(tiny_bundle, checkpoint=tiny_checkpoint)
    other = exported(EXPERT, seed=1)
    with pytest.raises(BundleError, match="was made from another checkpoint"):
        md.compare(other, ways=["masked"], checkpoint=tiny_checkpoint, **QUICK)
    with pytest.raises(TargetError, match="got no bundle"):
        md.compare([])


def test_bundles_of_several_targets(tiny_bundle: Path, exported: Callable[..., Path]) -> None:
    trt = exported(EXPERT, target="trt")
    with pytest.raises(TargetError, match="compare measures bundles of one target in one runtime: "):
        md.compare([tiny_bundle, trt])
    with pytest.raises(TargetError, match="got target 'trt', so export with --target onnx"):
        md.compare(trt)


def test_a_larger_batch_is_refused(exported: Callable[..., Path]) -> None:
    with pytest.raises(TargetError, match="was exported for batch 2"):
        md.compare(exported(EXPERT, batch=2))


def test_a_baseline_of_timm_is_exported_once(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = md.compare(tiny_bundle, baselines=[SMALL], cache=tmp_path, **QUICK)
    row = result.measured[1]
    module = third_party("timm").create_model(SMALL, num_classes=1000)
    assert row.name == SMALL and row.image == module.pretrained_cfg["input_size"][-1]
    assert row.parameters == sum(one.numel() for one in module.parameters())
    assert row.macs is not None and row.macs > 1e6
    (folder,) = tmp_path.iterdir()
    assert sorted(file.name for file in folder.iterdir()) == [RECORD, "model.onnx"]
    monkeypatch.setattr(exporting, "build", lambda *given: pytest.fail("exported again"))
    assert export_baseline(Baseline(SMALL, "timm"), 0, tmp_path).graph == folder / "model.onnx"


def test_another_seed_is_another_file_and_a_failed_export_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = Baseline(SMALL, "timm")
    assert exporting._name(baseline, 0) != exporting._name(baseline, 1)
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(md.ParityError, match="the exported graph differs from the module by"):
        export_baseline(baseline, 0, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_baseline_of_timm_in_batches(tiny_bundle: Path, tmp_path: Path) -> None:
    result = md.compare(tiny_bundle, baselines=[SMALL], cache=tmp_path, **(QUICK | {"batches": (1, 2, 3)}))
    row = result.measured[1]
    assert row.throughput is not None and [*row.throughput.blocks] == [2, 3]
    assert len([*tmp_path.iterdir()]) == 2, "a file for one picture, and one for any number"


@pytest.mark.parametrize("any_batch", [False, True])
def test_what_pytorch_cannot_export_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, any_batch: bool
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise ValueError("\nno such operator\nand much more")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    what = "a batch of any size" if any_batch else "one picture"
    with pytest.raises(
        TargetError, match=f"cannot export it to ONNX for {what}: ValueError: no such operator$"
    ):
        export_baseline(Baseline(SMALL, "timm"), 0, tmp_path, any_batch=any_batch)
    assert not [*tmp_path.iterdir()]


def test_weights_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    given = build(Baseline(SMALL, "timm"), 5).module.state_dict()
    torch.save({"state_dict": given}, file)
    found = build(Baseline(SMALL, "timm", file), 0).module.state_dict()
    assert all(torch.equal(found[name], given[name]) for name in given)
    torch.save({name: value for name, value in given.items() if name != "head.weight"}, file)
    with pytest.raises(CheckpointError, match=r"does not hold the weights of test_vit.*\(head\.weight\)"):
        build(Baseline(SMALL, "timm", file), 0)
    file.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        build(Baseline(SMALL, "timm", file), 0)


def test_a_baseline_that_cannot_be_exported_is_a_row(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    result = md.compare(tiny_bundle, baselines=[SMALL], cache=tmp_path, **QUICK)
    assert len(result.measured) == 1
    assert [one.name for one in result.left_out] == [SMALL]


def test_a_preset_is_exported_by_us(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "evit_s16", make_fields(routing="attentive"))
    result = md.compare(tiny_bundle, baselines=["evit_s16"], cache=tmp_path, **QUICK)
    _, row = result.measured
    assert row.published is not None and row.published.method == "EViT"
    assert row.macs == own_plan(make_config(routing="attentive")).buckets[0].macs


def test_uint8_graphs_take_the_pixels(tmp_path: Path) -> None:
    from morvit_deploy.measuring.compare.running.runtimes import _feed_of

    pixels = __import__("numpy").full((1, 8, 8, 3), 255, "uint8")
    assert _feed_of(tmp_path, "tensor(uint8)", [1, 8, 8, 3])(pixels).dtype == "uint8"
    fed = _feed_of(tmp_path, "tensor(float)", [1, 3, 8, 8])(pixels)
    assert fed.shape == (1, 3, 8, 8) and fed.dtype == "float32" and TensorProto.FLOAT == 1


def test_the_architecture_of_a_preset_is_recognized() -> None:
    assert preset_of(preset("morvit_b16")) == "morvit_b16"
    assert preset_of(preset("vit_b16")) == "vit_b16"
    assert preset_of(preset("morvit_b16_r5")) is None
