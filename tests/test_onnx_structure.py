"""The structure proof finds planted defects in a written file, and names what it found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from conftest import make_config
from onnx import helper, numpy_helper

from morvit_deploy.baselines import build_form
from morvit_deploy.bundle import Manifest, open_manifest
from morvit_deploy.checkpoint import load_checkpoint
from morvit_deploy.exporters.onnx_structure import Facts, prove
from morvit_deploy.macs import schedule_macs
from morvit_deploy.verification import options_of

Plant = Callable[[onnx.ModelProto], None]


class Written:
    """A good bundle of a model wide enough for its weights to count, and the proof of a changed file."""

    def __init__(self, bundle: Path) -> None:
        self.bundle, self.manifest = bundle, open_manifest(bundle)
        model = load_checkpoint(bundle.parent / "checkpoint")
        bucket = self.manifest.plan.buckets[0]
        self.graph = build_form("unrolled", model, bucket, options_of(self.manifest))
        self.macs = schedule_macs(model.config, bucket.capacity)

    def prove(self, folder: Path, plant: Plant, manifest: Manifest | None = None) -> Facts:
        model = onnx.load(self.bundle / "model.onnx")
        plant(model)
        onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin")
        return prove(folder / "model.onnx", manifest or self.manifest, self.graph, self.macs)


WIDE: dict[str, Any] = {"embed_dim": 64, "mlp_dim": 128, "num_heads": 4}


@pytest.fixture(scope="module")
def written(exported: Callable[..., Path]) -> Written:
    return Written(exported(make_config(**WIDE)))


@pytest.fixture(scope="module")
def written_dynamic(exported: Callable[..., Path]) -> Written:
    return Written(exported(make_config(**WIDE), batch="dynamic"))


def readers(model: onnx.ModelProto, weight: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if weight in node.input]


def rewire(model: onnx.ModelProto, old: str, new: str) -> None:
    """The second application of a block reads another weight."""
    node = readers(model, old)[1]
    node.input[list(node.input).index(old)] = new


def leave_alone(model: onnx.ModelProto) -> None:
    pass


def duplicate(model: onnx.ModelProto) -> None:
    original = next(init for init in model.graph.initializer if init.name == "cycle.0.fc1.weight")
    model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(original), "planted"))
    rewire(model, original.name, "planted")


def add_nonzero(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("NonZero", ["first"], ["planted_out"], name="planted"))


def add_scatter(model: onnx.ModelProto) -> None:
    model.graph.node.append(
        helper.make_node(
            "ScatterElements", ["first", "planted_index", "first"], ["planted_out"], name="planted"
        )
    )
    index = onnx.helper.make_tensor("planted_index", onnx.TensorProto.INT64, [1, 17, 64], [0] * 17 * 64)
    model.graph.initializer.append(index)


def read_another_block(model: onnx.ModelProto) -> None:
    rewire(model, "cycle.0.fc1.weight", "first.fc1.weight")


def leave_one_application_out(model: onnx.ModelProto) -> None:
    """The second application's last product is skipped: its input goes where its output went."""
    node = readers(model, "cycle.0.proj.weight")[1]
    model.graph.node.remove(node)
    source = readers(model, "cycle.0.proj.weight")[0].output[0]
    model.graph.node.insert(len(model.graph.node) // 2, helper.make_node("Identity", [source], node.output))


def foreign_weight(model: onnx.ModelProto) -> None:
    original = next(init for init in model.graph.initializer if init.name == "cycle.0.fc1.weight")
    model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(original) * 2, "planted"))
    rewire(model, original.name, "planted")


def dynamic_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "planted"


def one_product_more(model: onnx.ModelProto) -> None:
    weight = "cycle.0.proj.weight"
    model.graph.node.append(helper.make_node("MatMul", [weight, weight], ["planted_out"], name="planted"))


def facts_text(facts: Facts) -> str:
    return "\n".join(facts.violations)


def test_the_file_as_written_is_proved(written: Written, tmp_path: Path) -> None:
    facts = written.prove(tmp_path, leave_alone)
    assert facts.violations == []
    assert facts.as_dict()["block_applications"] == {"first": 1, "cycle.0": 3, "last": 1}
    assert facts.macs == written.macs == written.manifest.macs["topk"]


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (duplicate, ["stored 2 times", "cycle.0.fc1.weight", "planted"]),
        (add_nonzero, ["'planted' is a NonZero"]),
        (add_scatter, ["'planted' is a ScatterElements"]),
        (read_another_block, ["cycle.0.fc1.weight", "applied 2 times, expected 3", "first.fc1.weight"]),
        (leave_one_application_out, ["cycle.0.proj.weight", "applied 2 times, expected 3"]),
        (foreign_weight, ["'planted'", "no weight of the model", "applied 2 times, expected 3"]),
        (dynamic_input, ["'image'", "dynamic", "planted"]),
        (one_product_more, ["MACs", "cycle.0.proj.weight"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_defect_is_named(written: Written, plant: Plant, named: list[str], tmp_path: Path) -> None:
    facts = written.prove(tmp_path, plant)
    assert not facts.as_dict()["proved"]
    for words in named:
        assert words in facts_text(facts)


def test_a_dynamic_dimension_other_than_the_batch_is_named(written_dynamic: Written, tmp_path: Path) -> None:
    assert written_dynamic.prove(tmp_path, leave_alone).violations == []
    assert "'image'" in facts_text(written_dynamic.prove(tmp_path, dynamic_input))


@pytest.mark.parametrize(
    "plant", [duplicate, add_nonzero, read_another_block], ids=lambda plant: plant.__name__
)
def test_defects_in_a_dynamic_graph_are_found(written_dynamic: Written, plant: Plant, tmp_path: Path) -> None:
    assert written_dynamic.prove(tmp_path, plant).violations


def test_a_bloated_file_set_is_named(written: Written, tmp_path: Path) -> None:
    files = tuple(file.model_copy(update={"bytes": file.bytes + 600_000}) for file in written.manifest.files)
    facts = written.prove(tmp_path, leave_alone, written.manifest.model_copy(update={"files": files}))
    assert "bytes, at most" in facts_text(facts)


def test_a_small_weight_stored_twice_is_named(exported: Callable[..., Path], tmp_path: Path) -> None:
    facts = Written(exported(make_config(), with_depth=True)).prove(tmp_path, duplicate)
    assert "planted" in facts_text(facts)
