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
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from onnx import external_data_helper
from safetensors.torch import load_file, save_file
from tiny_models import make_config, random_model, zero

from morvit_deploy import export, open_bundle
from morvit_deploy.agent.core.recipe import sha256_of
from morvit_deploy.errors import BundleError, CheckpointError, ParityError
from morvit_deploy.exporters.verification import verify
from morvit_deploy.graph import weights
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.routings import counting
from morvit_deploy.verifying.findings import MARGIN, BucketSeen, Dispatched, Gap, RoutingChange
from morvit_deploy.verifying.gaps import LOGIT_TOLERANCE
from morvit_deploy.verifying.outcome import Verification

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
    edit(bundle, describe)


def edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest in place."""
    fields = json.loads((bundle / "manifest.json").read_text())
    fields["folder"] = bundle
    change(fields)
    del fields["folder"]
    (bundle / "manifest.json").write_text(json.dumps(fields))


def describe(manifest: dict[str, Any]) -> None:
    """Make sizes and hashes fit the files."""
    for file in manifest["files"]:
        path = manifest["folder"] / file["path"]
        file.update(bytes=path.stat().st_size, sha256=sha256_of(path))


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
        "first divergence: step1.state",
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


def test_a_changed_router_shows_where_cls_is_routed_too(
    exported: Callable[..., Path], tmp_path: Path
) -> None:
    source = exported(make_config(routing="expert_choice_flat"), batch=4, with_depth=True)
    assert verify(source, source.parent / "checkpoint").passed
    bundle = Path(shutil.copytree(source, tmp_path / "bundle"))
    perturb(bundle, "routers.1.0.weight", negate)
    result = verify(bundle, source.parent / "checkpoint")
    assert result.router_agreement is not None
    assert result.router_agreement[0] == 1.0
    assert result.router_agreement[1] < 0.9
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
    assert "exported from another checkpoint" in result.failure


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


def test_some_ambiguous_images_are_set_aside_and_most_of_them_fail() -> None:
    assert judged(ambiguous=2).passed
    for ambiguous, words in ((3, "3 of 4 images have a"), (4, "all 4 images have a")):
        found = judged(ambiguous=ambiguous)
        assert not found.passed
        assert words in found.failure and str(MARGIN) in found.failure
        assert "does not match the checkpoint" not in found.failure, "it may: nobody knows"


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
    assert result.clearances[0] < MARGIN < result.clearances[1]
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


# several buckets -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ladder(exported: Callable[..., Path]) -> Path:
    """Buckets b0, b1 and full in one self-dispatching graph."""
    return exported(EXPERT, plan=threshold_ladder())


@pytest.fixture(scope="module")
def parts(exported: Callable[..., Path]) -> Path:
    """A stem and the trunks b0 and full, for any batch."""
    return exported(TOKEN, plan=depth_ladder(), batch="dynamic", dispatch="host")


def copied(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / "bundle"))


@pytest.mark.parametrize("name", ["ladder", "parts"])
def test_a_good_bundle_of_several_buckets_passes(
    name: str, request: pytest.FixtureRequest, image_files: list[Path]
) -> None:
    bundle: Path = request.getfixturevalue(name)
    result = verify(bundle, bundle.parent / "checkpoint", images=image_files[0].parent)
    assert result.passed, result.failure
    plan = json.loads((bundle / "manifest.json").read_text())["plan"]
    assert [seen.name for seen in result.buckets] == [bucket["name"] for bucket in plan["buckets"]]
    assert sum(seen.served for seen in result.buckets) == result.images == 6
    assert result.buckets[-1].fitting == 6
    for seen in result.buckets:
        assert seen.judged == result.images - result.ambiguous > 0
        assert 0 <= seen.served <= seen.fitting + (result.dispatched.overflowed if result.dispatched else 0)
        assert 0 < seen.max_abs <= LOGIT_TOLERANCE
        assert seen.wrong_overflow == 0
    assert result.dispatched is not None and result.dispatched.passed
    assert result.dispatched.misdirected == 0
    assert (result.unrolling_gap is None) == (name == "parts"), "depths are the trained model's own"


def test_the_answer_of_several_buckets_is_json(ladder: Path) -> None:
    result = verify(ladder, ladder.parent / "checkpoint")
    answer = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert answer["passed"] is True
    names = {"name", "served", "fitting", "judged", "max_abs", "wrong_overflow", "wrong_depth"}
    assert [set(bucket) for bucket in answer["buckets"]] == [names] * 3
    assert {"max_abs", "overflowed", "misdirected"} <= set(answer["dispatch"])
    assert answer["unrolling_gap"]["passed"] is True
    gap = answer["routing_gap"]
    assert gap["tolerance"] is None, "measured, not judged"
    assert len(gap["decision_agreement"]) == len(gap["kept_share"]) == 3
    assert sum(gap["margin_histogram"].values()) == answer["images"]


@pytest.mark.parametrize(
    ("weight", "place"),
    [
        ("cycle.0.fc2.weight", "bucket b0, step1.state"),
        ("routers.1.0.weight", "bucket b0, step2"),
        ("last.proj.weight", "bucket b0, logits"),
    ],
)
def test_a_changed_weight_names_bucket_and_tensor(
    ladder: Path, tmp_path: Path, weight: str, place: str
) -> None:
    bundle = copied(ladder, tmp_path)
    perturb(bundle, weight, add_noise)
    result = verify(bundle, ladder.parent / "checkpoint")
    assert not result.passed
    assert result.first_divergence is not None and result.first_divergence.startswith(place)
    assert "dispatch: max |Δlogit|" in result.failure


def bucket(number: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["plan"]["buckets"][number].update(changes)


def swap_names(manifest: dict[str, Any]) -> None:
    first, second, _ = manifest["plan"]["buckets"]
    first["name"], second["name"] = second["name"], first["name"]


def remove_a_bucket(manifest: dict[str, Any]) -> None:
    name = manifest["plan"]["buckets"].pop(0)["name"]
    del manifest["macs"][name]


def rename_a_bucket(manifest: dict[str, Any]) -> None:
    manifest["plan"]["buckets"][0]["name"] = "b7"
    manifest["macs"]["b7"] = manifest["macs"].pop("b0")


EDITS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("ladder", lambda m: m["plan"].update(thresholds=[0.5, 0.0, 0.0]), "conversion gap"),
    ("ladder", bucket(0, upto=0), "images ran in another bucket than the plan requires"),
    ("ladder", lambda m: m["plan"]["thresholds"].__setitem__(0, 0.001), "router logits are compared with"),
    ("ladder", bucket(1, upto=15), "the graph chooses by"),
    ("ladder", lambda m: m["plan"].update(checkpoint="0" * 64), "plan.checkpoint: differs"),
    ("ladder", bucket(1, upto=17), "buckets: got upto"),
    ("ladder", bucket(0, capacity=[5, 4, 1]), "plan.buckets.b0.macs"),
    ("ladder", lambda m: m["plan"].update(mode="topk"), "thresholds: expected numbers in mode 'threshold'"),
    ("ladder", lambda m: m.update(form="masked"), "form: 'masked' with 3 buckets in the plan"),
    ("ladder", lambda m: m.update(dispatch="single"), "dispatch: 'single' with 3 buckets"),
    ("ladder", lambda m: m.update(dispatch="host"), "stem.onnx"),
    ("ladder", lambda m: m["outputs"].pop(1), "outputs: bucket is missing"),
    ("ladder", lambda m: m["outputs"].pop(2), "the graph has"),
    ("ladder", lambda m: m.update(probes=[]), "bucket b0: the manifest's probes"),
    ("ladder", lambda m: m["macs"].update(b0=1), "MACs and parameters"),
    ("ladder", swap_names, "bucket b1: the "),
    ("ladder", remove_a_bucket, "Ifs"),
    ("ladder", rename_a_bucket, "MACs and parameters"),
    ("parts", lambda m: m["carried"].pop(), "lists the carried values"),
    ("parts", lambda m: m.update(dispatch="graph"), "model.onnx"),
    ("parts", rename_a_bucket, "b7.onnx"),
    ("parts", remove_a_bucket, "dispatch"),
    ("parts", bucket(0, capacity=[16, 4, 1]), "plan.buckets.b0.macs"),
]


@pytest.mark.parametrize(
    ("name", "change", "words"), EDITS, ids=lambda value: value[:40] if isinstance(value, str) else ""
)
def test_a_falsified_plan_does_not_pass(
    name: str, change: Any, words: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    good: Path = request.getfixturevalue(name)
    bundle = copied(good, tmp_path)
    edit(bundle, change)
    try:
        result = verify(bundle, good.parent / "checkpoint")
    except BundleError as error:
        assert words in str(error)
    else:
        assert not result.passed
        assert words in "\n".join([result.failure, *result.structure["violations"]])


@pytest.mark.parametrize("file", ["model.onnx", "weights.bin"])
def test_a_file_that_is_no_graph_is_one_message(ladder: Path, tmp_path: Path, file: str) -> None:
    """Hashes fit, content does not."""
    bundle = copied(ladder, tmp_path)
    (bundle / file).write_bytes(b"not a graph")
    edit(bundle, describe)
    with pytest.raises(BundleError, match="cannot load"):
        verify(bundle, ladder.parent / "checkpoint")
    with pytest.raises(BundleError, match="cannot load"):
        open_bundle(bundle, bucket="b0")


def test_agreement_with_the_trained_model_is_judged_when_asked_for(
    approximation: Path, tmp_path: Path
) -> None:
    checkpoint = approximation.parent / "checkpoint"
    found = verify(approximation, checkpoint)
    agreement = found.routing_gap.top1_agreement
    assert found.passed and 0 < agreement < 1
    assert verify(approximation, checkpoint, min_agreement=agreement).passed
    result = verify(approximation, checkpoint, min_agreement=1.0)
    assert not result.passed
    assert f"top-1 agreement {agreement:.1%}" in result.failure
    assert "expected at least 100.0%" in result.failure
    plan = approximation.parent / "plan.json"
    with pytest.raises(ParityError, match=r"no bundle was written: .*\n.*routing gap: got top-1 agreement"):
        export(checkpoint, tmp_path / "out", plan=plan, min_agreement=1.0)
    assert not (tmp_path / "out").exists()


def seen(name: str = "b0", judged: int = 4, wrong_overflow: int = 0) -> BucketSeen:
    return BucketSeen(name, 1, 1, judged, 0.0, wrong_overflow)


GOOD_GAP = Gap(0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"buckets": [seen(), seen("b1", wrong_overflow=2)]}, "bucket b1: overflow is wrong for 2 images"),
        ({"buckets": [seen(judged=0)]}, "bucket b0: no image could be compared"),
        ({"dispatched": Dispatched(GOOD_GAP, 0, 3)}, "3 images ran in another bucket than the plan requires"),
        ({"dispatched": Dispatched(Gap(2.0, 1.0, 1.0), 0, 0)}, "dispatch: max |Δlogit| 2 (at most 1)"),
        ({"unrolling_gap": Gap(2.0, 1.0, 1.0)}, "unrolling gap: max |Δlogit| 2"),
        ({"min_agreement": 0.9, "routing_gap": Gap(5.0, float("inf"), 0.8)}, "top-1 agreement 80.0%"),
        ({"conversion_gap": Gap(0.0, 1.0, 0.75)}, "top-1 agreement 75.0%"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_failure_has_its_line(changes: dict[str, Any], words: str) -> None:
    result = judged(0, **changes)
    assert not result.passed
    assert words in result.failure
    assert json.dumps(result.as_dict(), allow_nan=False)


def test_an_approximation_is_measured_and_not_judged() -> None:
    result = judged(0, routing_gap=Gap(5.0, float("inf"), 0.8), unrolling_gap=GOOD_GAP, buckets=[seen()])
    assert result.passed
    assert [name for name, _ in result.gaps] == ["routing", "unrolling", "conversion"]


def test_a_change_of_routing_is_counted_token_by_token() -> None:
    """Two images of four tokens and three steps: one token of the second image runs a step less."""
    import torch

    from morvit_deploy.model.trace import Decision, Outcome, Trace

    def outcome(depth: list[list[int]], margin: float) -> Outcome:
        traces = []
        for row in map(torch.tensor, depth):
            candidates, decisions = torch.arange(len(row)), []
            for step in (1, 2, 3):
                kept = torch.nonzero(row >= step)[:, 0]
                decisions.append(Decision(candidates, kept, torch.zeros(len(candidates)), margin, len(kept)))
                candidates = kept
            traces.append(Trace(decisions))
        return Outcome(torch.zeros(len(depth), 2), torch.tensor(depth), traces)

    change = RoutingChange.empty(3)
    assert change.agreement == change.kept_share == [1.0, 1.0, 1.0]
    change.add(outcome([[3, 2, 1, 0]], 0.5), outcome([[3, 2, 1, 0]], 0.5))
    change.add(outcome([[3, 3, 1, 0]], 0.5), outcome([[3, 2, 1, 0]], 0.002))
    assert change.agreement == [1.0, 1.0, 7 / 8]
    assert change.kept_share == [6 / 8, 4 / 8, 2 / 8]
    assert change.margin_histogram == {"<0.0001": 0, "≥0.0001": 0, "≥0.001": 1, "≥0.01": 0, "≥0.1": 1}
    change.add(outcome([[3]], 0.5), outcome([[3]], float("inf")))
    assert sum(change.margin_histogram.values()) == 3, "a decision that nothing can alter counts too"


def test_a_change_of_routing_where_tokens_come_back() -> None:
    """Another schedule of a flat model: who runs is compared step by step, CLS too, and not by depth."""
    from tiny_models import normalised, random_pixels

    from morvit_deploy.model.trace import Routing

    model = random_model(make_config(routing="expert_choice_flat"))
    images = normalised(model.config, random_pixels(model.config, 3)).float()
    trained, planned = model(images), model(images, Routing(capacity=(9, 12, 13)))
    change = RoutingChange.empty(3)
    change.add(trained, planned)
    assert change.tokens == 3 * 17
    assert change.agreement[:2] == [1.0, 1 - 8 / 17]  # eight more run step 2
    assert change.kept_share == [9 / 17, 12 / 17, 13 / 17]


def test_an_older_bundle_is_verified_with_the_keys_that_it_forms(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest does not know rewrite 6, and its plan counts K and V of the last block."""
    bundle = tmp_path / "older"
    with monkeypatch.context() as earlier:
        for module in (weights, counting):
            earlier.setattr(module, "leaves_keys_unformed", lambda config: False)
        export(checkpoint, out=bundle)
    edit(bundle, lambda manifest: manifest.pop("unformed_keys"))
    assert "last.kv.weight" in {init.name for init in onnx.load(bundle / "model.onnx").graph.initializer}
    assert verify(bundle, checkpoint).passed
    edit(bundle, lambda manifest: manifest.update(unformed_keys=True))
    assert not verify(bundle, checkpoint).passed
