"""The proof of a Core ML package finds what was changed in the saved file; what it cannot see, parity does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptive_plans import threshold_plan
from bucket_plans import EXPERT, threshold_ladder
from mil_edits import Edit
from numpy.typing import NDArray
from tiny_models import make_config

from morvit_deploy.bundle.manifest import Manifest, describe_files, open_manifest
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.coreml import proof as coreml_proof
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.contract.names import PACKAGE
from morvit_deploy.exporters.coreml.export import CoremlExporter
from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
from morvit_deploy.exporters.functions.weights import content_key, promise_of
from morvit_deploy.exporters.verification import options_of, verify
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.checkpoint import load_checkpoint
from morvit_deploy.verifying.outcome import Verification

Exported = Callable[..., Path]
_ENTRY = 64  # bytes before an array in the weight file: mark, type, size, place
FORM = {"layout": "bsd", "select": "topk", "with_depth": True, "target": "coreml"}


@dataclass
class Sound:
    """A package that was proved, and what it was written from."""

    bundle: Path
    manifest: Manifest
    graphs: dict[str, StaticMoRViT]

    def weight(self, name: str) -> NDArray[np.float32]:
        """A weight of the static graphs."""
        graph = next(iter(self.graphs.values()))
        promise = promise_of(graph, example_image(graph, 1))
        return next(weight.values for weight in promise.weights if weight.name == name)

    def places(self, name: str) -> list[int]:
        """Where a weight is stored, in either orientation."""
        wanted = content_key(self.weight(name))
        package = MilPackage(self.bundle / PACKAGE)
        return sorted(
            {
                constant.stored[1]
                for function in package.functions
                for constant in package.function(function).constants.values()
                if constant.stored and content_key(constant.value) == wanted
            }
        )


def sound_of(bundle: Path) -> Sound:
    manifest = open_manifest(bundle)
    model = load_checkpoint(bundle.parent / "checkpoint")
    options = options_of(CoremlExporter(), manifest)
    return Sound(bundle, manifest, build_graphs(manifest.form, model, manifest.plan, options))


@pytest.fixture(scope="module")
def sound(exported: Exported) -> Sound:
    """Thresholds and three buckets in fp32."""
    return sound_of(exported(EXPERT, plan=threshold_ladder(), precision="fp32", **FORM))


def edited(sound: Sound, tmp_path: Path, change: Callable[[Edit, Sound], None]) -> Path:
    """A copy of the bundle with a changed package, whose manifest lists the files as they are now."""
    folder = Path(shutil.copytree(sound.bundle, tmp_path / "edited"))
    edit = Edit(folder / PACKAGE)
    change(edit, sound)
    edit.save()
    files = describe_files(folder, [file.path for file in sound.manifest.files])
    told = sound.manifest.model_copy(update={"files": tuple(files)})
    (folder / "manifest.json").write_text(told.to_json(), encoding="utf-8")
    return folder


def found(sound: Sound, folder: Path) -> list[str]:
    return coreml_proof.prove(folder, open_manifest(folder), sound.graphs).violations


def verified(sound: Sound, folder: Path) -> Verification:
    return verify(folder, sound.bundle.parent / "checkpoint", threads=1)


def swapped(first: str, second: str) -> Callable[[Edit, Sound], None]:
    def change(edit: Edit, sound: Sound) -> None:
        (a,), (b,) = sound.places(first), sound.places(second)
        edit.move({a: b, b: a})

    return change


def stored_twice(edit: Edit, sound: Sound) -> None:
    (place,) = sound.places("cycle.0.fc1.weight")
    edit.move({place: edit.append_copy(place)}, ("full",))


def applied_once_more(edit: Edit, sound: Sound) -> None:
    block = edit.block("b0")
    at = max(number for number, op in enumerate(block.operations) if op.type == "linear")
    once_more = type(block.operations[at])()
    once_more.CopyFrom(block.operations[at])
    once_more.outputs[0].name = "once_more"
    block.operations.insert(at, once_more)


def another_weight(edit: Edit, sound: Sound) -> None:
    (place,) = sound.places("cycle.0.fc2.weight")
    edit.write(place, np.float32(0.5))


def another_threshold(edit: Edit, sound: Sound) -> None:
    functions = [name for name in edit.program.functions if name != "stem"]
    kinds = [op for op in edit.block(functions[0]).operations if op.type == "greater_equal"]
    values = edit.constant(functions[0], kinds[0], "y").values
    values[0] += 0.125


def another_table(edit: Edit, sound: Sound) -> None:
    operation = edit.operation("stem", "greater")
    edit.constant("stem", operation, "y").values[0] += 1


def without_a_probe(edit: Edit, sound: Sound) -> None:
    rename(edit.block("b0"), "step2_router_logits", "step2_something")


def rename(block: Any, old: str, new: str) -> None:
    for op in block.operations:
        for value in op.outputs:
            value.name = new if value.name == old else value.name
        for argument in op.inputs.values():
            for read in argument.arguments:
                if read.name == old:
                    read.name = new


def without_a_function(edit: Edit, sound: Sound) -> None:
    del edit.program.functions["b1"]
    kept = [told for told in edit.spec.description.functions if told.name != "b1"]
    del edit.spec.description.functions[:]
    edit.spec.description.functions.extend(kept)


def an_open_dimension(edit: Edit, sound: Sound) -> None:
    dims = edit.operation("full", "linear").outputs[0].type.tensorType.dimensions
    dims[0].unknown.variadic = False


def a_scatter(edit: Edit, sound: Sound) -> None:
    edit.operation("b0", "add").type = "scatter"


FAULTS: list[tuple[Callable[[Edit, Sound], None], str]] = [
    (swapped("cycle.0.fc1.weight", "first.fc1.weight"), "weight 'first.fc1.weight' is applied 3 times, expected 1"),
    (stored_twice, "weight 'cycle.0.fc1.weight' is stored 2 times"),
    (applied_once_more, "bucket b0: weight 'classifier.head.0.weight' is applied 2 times, expected 1"),
    (another_weight, "weight 'cycle.0.fc2.weight' is applied 0 times, expected 3"),
    (another_threshold, "router logits are compared with"),
    (another_table, "the stem chooses by"),
    (without_a_probe, "probes and the graph's values differ in ['step2_router_logits']"),
    (without_a_function, "the package has the functions ['stem', 'b0', 'full']"),
    (an_open_dimension, "has an open dimension"),
    (a_scatter, "b0: operation scatter"),
]  # fmt: skip


def test_the_package_itself_is_proved(sound: Sound, tmp_path: Path) -> None:
    folder = edited(sound, tmp_path, lambda edit, _: None)
    assert found(sound, folder) == []
    assert verified(sound, folder).passed


@pytest.mark.parametrize(("change", "told"), FAULTS, ids=[told.replace("/", " ") for _, told in FAULTS])
def test_a_fault_is_found(
    sound: Sound, tmp_path: Path, change: Callable[[Edit, Sound], None], told: str
) -> None:
    violations = found(sound, edited(sound, tmp_path, change))
    assert any(told in violation for violation in violations), violations


def test_weights_of_one_use_each_are_told_apart_by_their_values(sound: Sound, tmp_path: Path) -> None:
    """Each is applied once, as promised: only the values inside tell that they changed places."""
    folder = edited(sound, tmp_path, swapped("first.fc1.weight", "last.fc1.weight"))
    assert any("bucket full: value 'first' differs" in line for line in found(sound, folder))
    verification = verified(sound, folder)
    assert not verification.passed and not verification.conversion_gap.passed


def test_a_changed_bias_is_seen_in_the_values(sound: Sound, tmp_path: Path) -> None:
    def change(edit: Edit, sound: Sound) -> None:
        function = MilPackage(edit.package).function("full")
        last = [op for op in function.operations if op.type == "linear"][-1]
        (bias,) = last.inputs["bias"]
        edit.write(function.constants[str(bias)].stored[1], np.float32(0.5))

    folder = edited(sound, tmp_path, change)
    assert any("value 'logits' differs" in line for line in found(sound, folder))
    assert not verified(sound, folder).passed


def test_products_select_tokens_or_indices_do(sound: Sound, tmp_path: Path) -> None:
    """A package that gathers is not one of products, whatever its manifest says."""
    folder = edited(sound, tmp_path, lambda edit, _: None)
    told = json.loads((folder / "manifest.json").read_bytes())
    told["target_form"]["select"] = "onehot"
    (folder / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    assert any("where tokens are selected by products" in line for line in found(sound, folder))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"precision": "fp16"}, "has numbers in fp32, which contradicts the manifest: fp16"),
        ({"ios": 17}, "has the operation set CoreML8, which contradicts"),
        ({"classifier": True}, "has the outputs logits, depth, overflow, which contradicts"),
    ],
    ids=["precision", "ios", "classifier"],
)
def test_the_form_is_the_manifests(sound: Sound, changes: dict[str, Any], told: str) -> None:
    form = CoremlForm.of(sound.manifest)
    own = {name: value for name, value in changes.items() if name != "precision"}
    changed = {"target_form": form.model_copy(update=own), "precision": changes.get("precision", "fp32")}
    manifest = sound.manifest.model_copy(update=changed)
    violations = coreml_proof.prove(sound.bundle, manifest, sound.graphs).violations
    assert any(told in line for line in violations), violations


def test_another_layout_than_told_is_one_message(sound: Sound, tmp_path: Path) -> None:
    folder = edited(sound, tmp_path, lambda edit, _: None)
    told = json.loads((folder / "manifest.json").read_bytes())
    told["target_form"]["layout"] = "bc1s"
    (folder / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(BundleError, match="not of layout 'bc1s'; the manifest was edited"):
        verified(sound, folder)


def test_functions_are_those_of_the_plan(sound: Sound, tmp_path: Path) -> None:
    folder = edited(sound, tmp_path, lambda edit, _: None)
    told = json.loads((folder / "manifest.json").read_bytes())
    told["target_form"]["functions"].append("b9")
    (folder / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(BundleError, match=r"target_form\.functions: .*'b9'.*, the plan has"):
        open_manifest(folder)


@pytest.fixture(scope="module")
def small(exported: Exported) -> Sound:
    """Weights in int8, large enough to be compressed, in three functions."""
    config = make_config(embed_dim=64, mlp_dim=128)
    plan = threshold_plan(config, (0.0, 0.0, 0.0), [(4, 4, 1)])
    return sound_of(exported(config, plan=plan, weights="int8", allow_worse=True, **FORM))


def test_compressed_weights_are_told_apart_in_every_function(small: Sound) -> None:
    assert found(small, small.bundle) == []
    assert small.manifest.structure["block_applications"] == {"first": 1, "cycle.0": 3, "last": 1}


def test_compression_is_what_the_manifest_says(small: Sound) -> None:
    form = CoremlForm.of(small.manifest).model_copy(update={"weights": "float"})
    manifest = small.manifest.model_copy(update={"target_form": form})
    violations = coreml_proof.prove(small.bundle, manifest, small.graphs).violations
    assert any("has compressed weights, which contradicts" in line for line in violations)


def test_a_compressed_weight_is_stored_once(small: Sound, tmp_path: Path) -> None:
    def change(edit: Edit, sound: Sound) -> None:
        unpacks = next(op for op in edit.block("full").operations if op.type.startswith("constexpr_"))
        reference = unpacks.inputs["data"].arguments[0].value.blobFileValue
        reference.offset = edit.append_copy(reference.offset)

    (told,) = found(small, edited(small, tmp_path, change))
    assert "is stored 2 times, expected once" in told
