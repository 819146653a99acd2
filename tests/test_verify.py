"""`verify` passes a good bundle, fails a changed one, and says where the difference began."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import make_config, random_model, zero
from onnx import external_data_helper
from safetensors.torch import load_file, save_file

from morvit_deploy import export
from morvit_deploy.bundle import sha256
from morvit_deploy.checkpoint import save_checkpoint
from morvit_deploy.compare import LOGIT_TOLERANCE
from morvit_deploy.errors import BundleError, CheckpointError, ParityError
from morvit_deploy.verdict import MARGIN, Gap, Verification
from morvit_deploy.verification import verify

Change = Callable[[np.ndarray], None]


def perturb(bundle: Path, weight: str, change: Change) -> None:
    """Change one weight of a written bundle and make the manifest's sizes and hashes fit again."""
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    init = next(init for init in model.graph.initializer if init.name == weight)
    if external_data_helper.uses_external_data(init):
        place = external_data_helper.ExternalDataInfo(init)
        content = bytearray((bundle / "weights.bin").read_bytes())
        array = np.frombuffer(content, np.float32, count=place.length // 4, offset=place.offset)
        change(array)
        (bundle / "weights.bin").write_bytes(content)
    else:
        array = onnx.numpy_helper.to_array(init).copy()
        change(array)
        init.CopyFrom(onnx.numpy_helper.from_array(array, weight))
        (bundle / "model.onnx").write_bytes(model.SerializeToString())
    fields = json.loads((bundle / "manifest.json").read_text())
    for file in fields["files"]:
        path = bundle / file["path"]
        file.update(bytes=path.stat().st_size, sha256=sha256(path))
    (bundle / "manifest.json").write_text(json.dumps(fields))


def add_noise(array: np.ndarray) -> None:
    array += np.random.default_rng(0).normal(0, 0.3, array.shape).astype(np.float32)


def negate(array: np.ndarray) -> None:
    array *= -1


def test_a_good_bundle_passes(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    result = verify(str(tiny_bundle), str(tiny_checkpoint))
    assert result.passed and result.synthetic and result.same_checkpoint
    assert result.router_agreement == [1.0, 1.0, 1.0]
    assert (result.images, result.ambiguous, result.first_divergence) == (4, 0, None)
    assert result.routing_gap.max_abs <= 1e-9 < 1e-8
    assert 0 < result.conversion_gap.max_abs <= LOGIT_TOLERANCE
    assert result.structure["proved"] and result.structure["block_applications"]["cycle.0"] == 3


def test_given_pictures_are_used(tiny_bundle: Path, tiny_checkpoint: Path, image_files: list[Path]) -> None:
    result = verify(tiny_bundle, tiny_checkpoint, images=image_files[0].parent, limit=5)
    assert result.passed and not result.synthetic
    assert result.images == 5


def test_the_answer_is_json(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    answer = json.loads(json.dumps(verify(tiny_bundle, tiny_checkpoint).as_dict(), allow_nan=False))
    assert answer["passed"] is True
    assert {"structure", "routing_gap", "conversion_gap", "router_agreement"} <= set(answer)
    assert {"max_abs", "tolerance", "top1_agreement", "passed"} == set(answer["routing_gap"])


@pytest.mark.parametrize(
    ("weight", "place"),
    [
        ("stem.patch.weight", "embed"),
        ("first.fc1.weight", "first"),
        ("cycle.0.fc2.weight", "step1.state"),
        ("routers.1.0.weight", "step2"),
        ("last.proj.weight", "logits"),
        ("classifier.head.0.weight", "logits"),
    ],
)
def test_changed_weights_fail_and_the_first_tensor_is_named(
    copied_bundle: Path, tiny_checkpoint: Path, weight: str, place: str
) -> None:
    perturb(copied_bundle, weight, add_noise)
    result = verify(copied_bundle, tiny_checkpoint)
    assert not result.passed
    assert not result.conversion_gap.passed
    assert result.routing_gap.passed, "the checkpoint and its unroll are as good as before"
    assert result.first_divergence is not None and result.first_divergence.startswith(place)
    assert not result.structure["proved"], "a weight of the file is not the checkpoint's"
    assert result.first_divergence in result.failure


def test_a_failed_gap_tells_where(copied_bundle: Path, tiny_checkpoint: Path) -> None:
    """Small weights, such as a bias, are not compared by content: here only the numbers tell."""
    perturb(copied_bundle, "cycle.0.fc1.bias", add_noise)
    result = verify(copied_bundle, tiny_checkpoint)
    assert not result.passed
    for words in (
        "conversion gap: max |Δlogit|",
        "at most",
        "top-1 agreement",
        "first to diverge: step1.state",
    ):
        assert words in result.failure


def test_a_changed_router_shows_in_its_steps_agreement(copied_bundle: Path, tiny_checkpoint: Path) -> None:
    perturb(copied_bundle, "routers.1.0.weight", negate)
    result = verify(copied_bundle, tiny_checkpoint)
    assert result.router_agreement is not None
    first, second, _ = result.router_agreement
    assert first == 1.0
    assert second < 0.9
    assert result.first_divergence is not None and result.first_divergence.startswith("step2.runs")


def test_weights_that_are_not_finite_fail(copied_bundle: Path, tiny_checkpoint: Path) -> None:
    def spoil(array: np.ndarray) -> None:
        array[0] = np.nan

    perturb(copied_bundle, "first.fc2.weight", spoil)
    result = verify(copied_bundle, tiny_checkpoint)
    assert not result.passed
    assert result.first_divergence is not None and result.first_divergence.startswith("first")
    assert "NaN" not in json.dumps(result.as_dict()).replace("NaN or", "")


def other_weights(checkpoint: Path, folder: Path) -> Path:
    save_checkpoint(random_model(make_config(), seed=99), folder)
    return folder


def test_a_checkpoint_with_other_weights_fails(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    result = verify(tiny_bundle, other_weights(tiny_checkpoint, tmp_path / "other"))
    assert not result.passed and not result.same_checkpoint
    assert "other weights than this checkpoint" in result.failure


def test_a_slightly_trained_on_checkpoint_fails(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_checkpoint, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["head.bias"] += 1e-3
    save_file(tensors, other / "model.safetensors")
    result = verify(tiny_bundle, other)
    assert not result.passed
    assert result.conversion_gap.max_abs == pytest.approx(1e-3, rel=1e-2)


def test_another_config_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    save_checkpoint(random_model(make_config(gate="delta")), tmp_path / "other")
    with pytest.raises(BundleError, match="gate: the bundle has 'block', the checkpoint 'delta'"):
        verify(tiny_bundle, tmp_path / "other")


def test_damage_is_refused_before_anything_runs(
    copied_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (copied_bundle / "weights.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"weights\.bin: 0 bytes"):
        verify(copied_bundle, tiny_checkpoint)
    with pytest.raises(CheckpointError, match="missing"):
        shutil.copytree(tiny_checkpoint, tmp_path / "other")
        (tmp_path / "other" / "model.safetensors").unlink()
        verify(copied_bundle, tmp_path / "other")


def ambiguous_checkpoint(folder: Path) -> Path:
    """Routers of all zeros: every decision is a tie."""
    model = random_model(make_config())
    zero(model.routers)
    save_checkpoint(model, folder)
    return folder


def test_an_export_on_which_nothing_can_be_judged_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"all 64 images have a routing margin below 0\.0001"):
        export(ambiguous_checkpoint(tmp_path / "checkpoint"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def judged(ambiguous: int, images: int = 4, **changes: Any) -> Verification:
    good = Gap(0.0, 1.0, 1.0)
    fields: dict[str, Any] = {"structure": {"proved": True}, "routing_gap": good, "conversion_gap": good}
    fields |= {"router_agreement": [1.0], "synthetic": False} | changes
    return Verification(images=images, ambiguous=ambiguous, **fields)


def test_some_ambiguous_images_are_set_aside_and_all_of_them_fail() -> None:
    assert judged(ambiguous=3).passed
    assert not judged(ambiguous=4).passed
    assert str(MARGIN) in judged(ambiguous=4).failure


def test_an_ambiguous_image_is_not_judged(exported: Callable[..., Path], tmp_path: Path) -> None:
    """A grey picture has equal patches; without positions and biases in the way, its tokens tie."""
    from PIL import Image

    model = random_model(make_config(capacity=[16, 6, 3]), seed=2)
    model.pos_embed[:, 1:] = model.pos_embed[:, 1:2]
    save_checkpoint(model, tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "out")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (36, 36), (90, 120, 30)).save(tmp_path / "images" / "grey.png")
    noise = np.random.default_rng(0).integers(0, 256, (36, 36, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "images" / "noise.png")
    result = verify(tmp_path / "out", tmp_path / "checkpoint", images=tmp_path / "images")
    assert (result.images, result.ambiguous) == (2, 1)
    assert result.margins[0] < MARGIN < result.margins[1]
    assert result.passed


@pytest.mark.parametrize("change", [{"structure": {"proved": False, "violations": ["node 'x'"]}}])
def test_a_broken_structure_fails_by_itself(change: dict[str, Any]) -> None:
    structure = change["structure"] | {"form": "unrolled"}
    assert not judged(0, structure=structure).passed
    assert "node 'x'" in judged(0, structure=structure).failure


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["macs"].update(topk=1),
        lambda m: m["checkpoint"].update(parameters=7),
        lambda m: m.update(probes=[]),
        lambda m: m.update(form="masked"),
        lambda m: m.update(precision="int8"),
        lambda m: m["plan"]["buckets"][0].update(capacity=[1, 1, 1]),
    ],
    ids=["macs", "parameters", "probes", "form", "precision", "schedule"],
)
def test_a_falsified_manifest_does_not_pass(copied_bundle: Path, tiny_checkpoint: Path, change: Any) -> None:
    path = copied_bundle / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    try:
        assert not verify(copied_bundle, tiny_checkpoint).passed
    except BundleError as error:
        assert "edited" in str(error)


def test_a_model_that_answers_nan_fails(tmp_path: Path) -> None:
    """And is not excused as one that cannot be judged."""
    preprocess = {**make_config().preprocess.model_dump(mode="json"), "std": [1e-300, 1.0, 1.0]}
    save_checkpoint(random_model(make_config(preprocess=preprocess)), tmp_path / "checkpoint")
    with pytest.raises(ParityError, match="routing gap"):
        export(tmp_path / "checkpoint", tmp_path / "out")
