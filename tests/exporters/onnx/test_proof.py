"""The structure proof finds planted defects in a written file, and names what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from onnx import helper, numpy_helper
from tiny_models import make_config

from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.exporters.onnx import proof
from morvit_deploy.exporters.onnx.export import OnnxExporter
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.proof import prove
from morvit_deploy.exporters.onnx.proof_precision import Storing
from morvit_deploy.exporters.onnx.proof_storage import size_violations
from morvit_deploy.exporters.onnx.proof_structure import limit_violations
from morvit_deploy.exporters.structure import Structure
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.exporters.verification import options_of
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.model.checkpoint import load_checkpoint
from morvit_deploy.model.precision import Lowering

Plant = Callable[[onnx.ModelProto], None]


class Written:
    """A good bundle, and the proof of one of its graphs after a change."""

    def __init__(self, bundle: Path) -> None:
        self.bundle, self.manifest = bundle, open_manifest(bundle)
        model = load_checkpoint(bundle.parent / "checkpoint")
        self.graphs = build_graphs(
            "unrolled", model, self.manifest.plan, options_of(OnnxExporter(), self.manifest)
        )

    def prove(
        self, folder: Path, plant: Plant, manifest: Manifest | None = None, file: str = "model.onnx"
    ) -> Structure:
        for path in self.bundle.glob("*.onnx"):
            model = onnx.load(path)
            if path.name == file:
                plant(model)
            onnx.save_model(model, folder / path.name)
        return prove(folder, manifest or self.manifest, self.graphs)


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


def violations_text(proof: Structure) -> str:
    return "\n".join(proof.violations)


def test_the_file_as_written_is_proved(written: Written, tmp_path: Path) -> None:
    proof = written.prove(tmp_path, leave_alone)
    assert proof.violations == []
    assert proof.as_dict()["block_applications"] == {"first": 1, "cycle.0": 3, "last": 1}
    assert proof.macs == written.manifest.macs == {"topk": written.manifest.plan.buckets[0].macs}


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
    proof = written.prove(tmp_path, plant)
    assert not proof.as_dict()["proved"]
    for words in named:
        assert words in violations_text(proof)


def test_a_dynamic_dimension_other_than_the_batch_is_named(written_dynamic: Written, tmp_path: Path) -> None:
    assert written_dynamic.prove(tmp_path, leave_alone).violations == []
    assert "'image'" in violations_text(written_dynamic.prove(tmp_path, dynamic_input))


@pytest.mark.parametrize(
    "plant", [duplicate, add_nonzero, read_another_block], ids=lambda plant: plant.__name__
)
def test_defects_in_a_dynamic_graph_are_found(written_dynamic: Written, plant: Plant, tmp_path: Path) -> None:
    assert written_dynamic.prove(tmp_path, plant).violations


def test_a_bloated_file_set_is_named(written: Written, tmp_path: Path) -> None:
    files = tuple(file.model_copy(update={"bytes": file.bytes + 600_000}) for file in written.manifest.files)
    proof = written.prove(tmp_path, leave_alone, written.manifest.model_copy(update={"files": files}))
    assert "bytes, at most" in violations_text(proof)


def test_a_small_weight_stored_twice_is_named(exported: Callable[..., Path], tmp_path: Path) -> None:
    proof = Written(exported(make_config(), with_depth=True)).prove(tmp_path, duplicate)
    assert "planted" in violations_text(proof)


# several buckets -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written_ladder(exported: Callable[..., Path]) -> Written:
    """Buckets b0, b1 and full in one self-dispatching graph."""
    return Written(exported(EXPERT, plan=threshold_ladder()))


@pytest.fixture(scope="module")
def written_parts(exported: Callable[..., Path]) -> Written:
    """A stem and the trunks b0 and full."""
    return Written(exported(TOKEN, plan=depth_ladder(), batch="dynamic", dispatch="host"))


def branch(model: onnx.ModelProto, name: str) -> onnx.GraphProto:
    """The branch of a bucket."""
    return next(graph for graph in every_graph(model.graph) if graph.name == name)


def reading(graph: onnx.GraphProto, weight: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if weight in node.input]


def another_if(model: onnx.ModelProto) -> None:
    """The same logits whatever its condition says, so that only its presence is wrong."""
    chosen = branch(model, "b1")
    node = reading(chosen, "cycle.0.fc1.weight")[0]
    answers = [
        helper.make_graph(
            [helper.make_node("Identity", [node.input[0]], [f"planted_{number}"], name=f"planted_{number}")],
            f"planted_{number}",
            [],
            [helper.make_tensor_value_info(f"planted_{number}", onnx.TensorProto.FLOAT, None)],
        )
        for number in (0, 1)
    ]
    planted = helper.make_node(
        "If", ["is_b0"], ["planted"], name="planted", then_branch=answers[0], else_branch=answers[1]
    )
    chosen.node.insert(list(chosen.node).index(node), planted)
    node.input[0] = "planted"


def copy_in_a_branch(model: onnx.ModelProto) -> None:
    weight = next(init for init in model.graph.initializer if init.name == "cycle.0.fc1.weight")
    chosen = branch(model, "b0")
    chosen.initializer.append(numpy_helper.from_array(numpy_helper.to_array(weight), "b0/planted"))
    node = reading(chosen, weight.name)[0]
    node.input[list(node.input).index(weight.name)] = "b0/planted"


def unread_copy_in_a_branch(model: onnx.ModelProto) -> None:
    weight = next(init for init in model.graph.initializer if init.name == "cycle.0.fc1.weight")
    copy = numpy_helper.from_array(numpy_helper.to_array(weight), "b1/nobody reads this")
    branch(model, "b1").initializer.append(copy)


def another_block_in_one_bucket(model: onnx.ModelProto) -> None:
    node = reading(branch(model, "b1"), "cycle.0.fc1.weight")[1]
    node.input[list(node.input).index("cycle.0.fc1.weight")] = "first.fc1.weight"


def one_product_more_in_full(model: onnx.ModelProto) -> None:
    chosen, weight = branch(model, "full"), "cycle.0.proj.weight"
    node = reading(chosen, weight)[0]
    planted = helper.make_node("MatMul", [node.input[0], weight], ["planted"], name="planted")
    chosen.node.insert(list(chosen.node).index(node), planted)
    node.input[0] = "planted"


def nonzero_in_a_branch(model: onnx.ModelProto) -> None:
    branch(model, "b0").node.append(helper.make_node("NonZero", ["first"], ["b0/planted"], name="b0/planted"))


@pytest.mark.parametrize("name", ["written_ladder", "written_parts"])
def test_every_bucket_as_written_is_proved(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    written = request.getfixturevalue(name)
    proof = written.prove(tmp_path, leave_alone)
    assert proof.violations == []
    plan = written.manifest.plan
    assert proof.macs == written.manifest.macs == {bucket.name: bucket.macs for bucket in plan.buckets}


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (another_if, ["the Ifs", "'planted'", "expected 3"]),
        (unread_copy_in_a_branch, ["weight 'cycle.0.fc1.weight' is stored 2 times", "b1/nobody reads this"]),
        (copy_in_a_branch, ["bucket b0: weight 'cycle.0.fc1.weight' is stored 2 times", "b0/planted"]),
        (another_block_in_one_bucket, ["bucket b1: weight 'cycle.0.fc1.weight' is applied 2 times", "'b1/"]),
        (
            one_product_more_in_full,
            ["bucket full: weight 'cycle.0.proj.weight' is applied 4 times", "bucket full: the graph does"],
        ),
        (nonzero_in_a_branch, ["'b0/planted' is a NonZero"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_defect_in_one_bucket_is_named(
    written_ladder: Written, plant: Plant, named: list[str], tmp_path: Path
) -> None:
    proof = written_ladder.prove(tmp_path, plant)
    assert not proof.as_dict()["proved"]
    for words in named:
        assert words in violations_text(proof)
    buckets = {words.split(":")[0] for words in proof.violations if words.startswith("bucket")}
    assert len(buckets) <= 1, "the others are as they were"


def another_block_in_a_file(model: onnx.ModelProto) -> None:
    (node,) = reading(model.graph, "cycle.0.fc1.weight")
    node.input[list(node.input).index("cycle.0.fc1.weight")] = "first.fc1.weight"


def rename_weight(model: onnx.ModelProto) -> None:
    """What two files know by two names would lie in memory twice."""
    for init in model.graph.initializer:
        init.name = {"cycle.0.fc1.weight": "planted"}.get(init.name, init.name)
    for node in model.graph.node:
        node.input[:] = [{"cycle.0.fc1.weight": "planted"}.get(name, name) for name in node.input]


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (another_block_in_a_file, ["bucket b0: weight 'cycle.0.fc1.weight'", "expected once: []"]),
        (rename_weight, ["is stored 2 times, expected once: ['cycle.0.fc1.weight', 'planted']"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_defect_in_one_file_is_named(
    written_parts: Written, plant: Plant, named: list[str], tmp_path: Path
) -> None:
    proof = written_parts.prove(tmp_path, plant, file="b0.onnx")
    for words in named:
        assert words in violations_text(proof)


def test_a_plan_that_is_not_the_files_is_named(written_ladder: Written, tmp_path: Path) -> None:
    """A bucket whose graph holds another number of tokens than the manifest says."""
    plan = threshold_ladder()
    wrong = plan.buckets[0].model_copy(update={"capacity": (5, 4, 1)})
    changed = plan.model_copy(update={"buckets": (wrong, *plan.buckets[1:])})
    manifest = written_ladder.manifest.model_copy(update={"plan": changed})
    graphs = written_ladder.graphs | {"b0": written_ladder.graphs["b0"].for_bucket(wrong)}
    for path in written_ladder.bundle.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    violations = prove(tmp_path, manifest, graphs).violations
    assert len(violations) == 1 and violations[0].startswith("bucket b0: the graph does")


@pytest.mark.parametrize(
    ("most", "named"), [(16, []), (15, ["ranks 16, and the target's TopK at most 15"]), (None, [])]
)
def test_a_topk_beyond_the_targets_limit_is_named(
    written: Written, most: int | None, named: list[str]
) -> None:
    model = onnx.load(written.bundle / "model.onnx")
    limits = {} if most is None else {"topk": most}
    found = limit_violations(model, written.bundle, limits)
    assert [one.partition("' ")[2] for one in found] == named


def test_a_topk_in_a_branch_is_limited_too(written_ladder: Written) -> None:
    model = onnx.load(written_ladder.bundle / "model.onnx")
    inside = [node for graph in every_graph(model.graph) for node in graph.node if node.op_type == "TopK"]
    assert len(limit_violations(model, written_ladder.bundle, {"topk": 0})) == len(inside) > 1


def test_the_proof_reads_the_targets_limits(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = replace(find_target("onnx"), limits={"topk": 15})
    monkeypatch.setattr(proof, "find_target", lambda name: limited)
    assert any("at most 15" in found for found in written.prove(tmp_path, lambda model: None).violations)


def test_positions_of_a_large_image_are_no_copy_of_a_weight() -> None:
    """A table for 1,024 patches of width 768 is larger than the slack of a bundle of that width."""
    config = make_config(
        image_size=512, patch_size=16, embed_dim=768, preprocess={"resize": 512}, capacity=[9, 9, 9]
    )
    manifest: Any = SimpleNamespace(config=config, plan=SimpleNamespace(buckets=[None]))
    table = 4 * config.num_tokens * config.embed_dim
    storing = Storing("fp32", Lowering(), fast_tail=False, read_otherwise=frozenset())
    assert size_violations(table, [], manifest, storing, 0) == []
    assert size_violations(2 * table, [], manifest, storing, 0) != []
