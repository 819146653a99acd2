"""A mutation test of the verifier: every fault planted in a written ONNX bundle is found.

Each fault is an edit of a sound bundle whose hashes are then made to fit, so that only what `verify` computes can
tell. The sound bundles themselves must pass.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptive_plans import threshold_plan
from bucket_plans import EXPERT, TOKEN, depth_ladder
from onnx import numpy_helper
from onnx_edits import OnnxEdit, edited_onnx, set_attribute

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.exporters.verification import options_of, verify
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.model.checkpoint import load_checkpoint

Change = Callable[[OnnxEdit], None]

THRESHOLDS = (0.3, 0.0, -0.2)  # one for each step, so that two that changed places show
BUCKET = "b0"


@pytest.fixture(scope="module")
def ladder(exported: Callable[..., Path]) -> Path:
    """Thresholds, three buckets and depths in one self-dispatching graph."""
    plan = threshold_plan(EXPERT, THRESHOLDS, [(4, 4, 1), (8, 6, 2)], upto=(4, 8))
    return exported(EXPERT, plan=plan, with_depth=True)


@pytest.fixture(scope="module")
def parts(exported: Callable[..., Path]) -> Path:
    """A stem and two trunks for depths, for any batch."""
    return exported(TOKEN, plan=depth_ladder(), batch="dynamic", dispatch="host")


def structure(bundle: Path, checkpoint: Path) -> list[str]:
    """The violations that the structure proof finds."""
    manifest, model = open_manifest(bundle), load_checkpoint(checkpoint)
    exporter = find_target(manifest.target).load_exporter()
    graphs = build_graphs(manifest.form, model, manifest.plan, options_of(exporter, manifest))
    exporter.restore(graphs, manifest)
    violations: list[str] = exporter.prove(graphs, manifest, bundle)["violations"]
    return violations


def found(bundle: Path, checkpoint: Path) -> str:
    """What `verify` finds; empty where it passes. Without the runtime where the structure says enough."""
    try:
        if violations := structure(bundle, checkpoint):
            return "\n".join(violations)
        result = verify(bundle, checkpoint, threads=1)
    except BundleError as error:
        return str(error)
    return "" if result.passed else result.failure


# weights ---------------------------------------------------------------------------------------------------


def swap(first: str, second: str) -> Change:
    def change(edit: OnnxEdit) -> None:
        one, other = edit.array(first), edit.array(second)
        edit.set(first, other)
        edit.set(second, one)

    change.__name__ = f"{first} for {second}"
    return change


def times(name: str, factor: float) -> Change:
    def change(edit: OnnxEdit) -> None:
        edit.change(name, lambda values: values * factor)

    change.__name__ = f"{name} × {factor}"
    return change


def plus(name: str, offset: float) -> Change:
    def change(edit: OnnxEdit) -> None:
        edit.change(name, lambda values: values + offset)

    change.__name__ = f"{name} + {offset}"
    return change


def one_element_nudged(edit: OnnxEdit) -> None:
    nudge = 1e-5 * np.eye(1, 16 * 24, 7).reshape(16, 24)
    edit.change("cycle.0.fc1.weight", lambda values: values + nudge)


def positions_swapped(edit: OnnxEdit) -> None:
    edit.change("stem.positions", lambda rows: rows[[1, 0, *range(2, len(rows))]])


def colors_reversed(edit: OnnxEdit) -> None:
    """Rows of the patch projection are (row, column, channel)."""
    edit.change(
        "stem.patch.weight", lambda rows: rows.reshape(-1, 3, rows.shape[1])[:, ::-1].reshape(rows.shape)
    )


def another_blocks_bias(edit: OnnxEdit) -> None:
    node = next(node for node in edit.nodes("Gemm", BUCKET) if "cycle.0.fc1.bias" in node.input)
    node.input[2] = "first.fc1.bias"


def weight_hidden_by_its_branch(edit: OnnxEdit) -> None:
    """The outer graph has the right weight, the branch another of its name."""
    outer, branch = edit.graphs()[0], next(graph for graph in edit.graphs() if graph.name == BUCKET)
    right = next(init for init in outer.initializer if init.name == "cycle.0.fc1.weight")
    wrong = numpy_helper.to_array(right) + np.float32(0.1)
    branch.initializer.append(numpy_helper.from_array(wrong, right.name))


# numbers of operators ----------------------------------------------------------------------------------------


def attribute(op_type: str, name: str, value: Any, inside: str = BUCKET, number: int = 0) -> Change:
    def change(edit: OnnxEdit) -> None:
        set_attribute(edit.nodes(op_type, inside)[number], name, value)

    change.__name__ = f"{op_type}.{name} = {value}"
    return change


def factor_of_attention(edit: OnnxEdit) -> None:
    edit.after(edit.nodes("MatMul", BUCKET)[0], "Mul", np.array(0.99, np.float32))


def heads_swapped(edit: OnnxEdit) -> None:
    """Of the attended values (heads, tokens, head_dim)."""
    edit.after(edit.nodes("MatMul", BUCKET)[1], "Gather", np.array([1, 0]), axis=0)


def hidden_keys_seen(edit: OnnxEdit) -> None:
    """Padding is a key with a logit lower by one, instead of minus infinity."""
    node = edit.nodes("Where", BUCKET)[0]
    edit.own_constant(node, 2, np.array(-1.0, np.float32))


def tanh_for_sigmoid(edit: OnnxEdit) -> None:
    edit.nodes("Sigmoid", BUCKET)[0].op_type = "Tanh"


def gelu_by_tanh(inside: str = BUCKET) -> Change:
    """tanh(2u / √π) for erf(u): what a cheaper GELU would compute."""

    def change(edit: OnnxEdit) -> None:
        node = edit.nodes("Erf", inside)[0]
        edit.after(edit.maker(node.input[0]), "Mul", np.array(2 / np.sqrt(np.pi), np.float32))
        node.op_type = "Tanh"

    change.__name__ = "gelu by tanh"
    return change


def no_residual_gate(edit: OnnxEdit) -> None:
    """h + after instead of h + g · after."""
    sigmoid = edit.nodes("Sigmoid", BUCKET)[0]
    edit.after(sigmoid, "Add", np.array(1.0, np.float32))


def logits_permuted(edit: OnnxEdit) -> None:
    edit.after(edit.maker("b0/logits"), "Gather", np.array([1, 0, *range(2, 10)]), axis=-1)


def pixels_halved(edit: OnnxEdit) -> None:
    edit.after(edit.nodes("Cast", "morvit")[0], "Mul", np.array(0.5, np.float32))


# decisions ---------------------------------------------------------------------------------------------------


def compared(edit: OnnxEdit, value: float, inside: str = "") -> list[Any]:
    """Comparisons with one threshold."""
    nodes = edit.nodes("GreaterOrEqual", inside)
    return [node for node in nodes if edit.constant(node, 1) == np.float32(value)]


def thresholds_swapped(edit: OnnxEdit) -> None:
    """Of the second and the third step, in one bucket: the set of numbers is the same."""
    second, third = (compared(edit, value, BUCKET) for value in THRESHOLDS[1:])
    names = second[0].input[1], third[0].input[1]
    for nodes, name in ((second, names[1]), (third, names[0])):
        for node in nodes:
            node.input[1] = name


def threshold_nudged(edit: OnnxEdit) -> None:
    for node in compared(edit, THRESHOLDS[2], BUCKET):
        edit.own_constant(node, 1, np.nextafter(np.float32(THRESHOLDS[2]), np.float32(1)))


def greater(step: int) -> Change:
    def change(edit: OnnxEdit) -> None:
        for node in compared(edit, THRESHOLDS[step], BUCKET):
            node.op_type = "Greater"

    change.__name__ = f"> at step {step + 1}"
    return change


def capacity_of_step(step: int, more: int) -> Change:
    """The place, among the candidates in order, of the first token that the capacity excludes."""

    def change(edit: OnnxEdit) -> None:
        (comparison,) = compared(edit, THRESHOLDS[step], BUCKET)
        node = next(node for node in edit.readers(comparison.output[0]) if node.op_type == "Gather")
        edit.own_constant(node, 1, edit.constant(node, 1) + more)

    change.__name__ = f"capacity {more:+} in the overflow of step {step + 1}"
    return change


def top_k(more: int) -> Change:
    def change(edit: OnnxEdit) -> None:
        node = edit.nodes("TopK", BUCKET)[-1]
        edit.own_constant(node, 1, edit.constant(node, 1) + more)

    change.__name__ = f"k {more:+}"
    return change


def follow(edit: OnnxEdit, value: str, *op_types: str) -> Any:
    """The last of some nodes in a row, the first of which reads a value."""
    for op_type in op_types:
        node = next(node for node in edit.readers(value) if node.op_type == op_type)
        value = node.output[0]
    return node


def slice_end(edit: OnnxEdit) -> None:
    """One token fewer is held after the first step."""
    node = follow(edit, "b0/step1.order", "Add", "Concat", "Slice")
    edit.own_constant(node, 2, edit.constant(node, 2) - 1)


def tokens_shifted(edit: OnnxEdit) -> None:
    """CLS is row 0: positions among the patches are one less than rows."""
    node = follow(edit, "b0/step1.order", "Add")
    edit.own_constant(node, 1, edit.constant(node, 1) - 1)


def overflow(operator: str) -> Change:
    def change(edit: OnnxEdit) -> None:
        if operator == "Not":
            edit.after(edit.maker("b0/overflow"), "Not")
        else:
            edit.after(edit.maker("b0/overflow"), "And", np.array(False))

    change.__name__ = f"overflow: {operator}"
    return change


def depth_off_by_one(edit: OnnxEdit) -> None:
    edit.after(edit.maker("b0/depth"), "Add", np.array(1, np.int32))


def depth_of_two_tokens_swapped(edit: OnnxEdit) -> None:
    edit.after(edit.maker("b0/depth"), "Gather", np.array([1, 0, *range(2, 16)]), axis=-1)


# the choice of the bucket --------------------------------------------------------------------------------------


def always_full(edit: OnnxEdit) -> None:
    node = edit.maker("needed")
    edit.after(node, "Max", np.array([2], np.int32))


def table_shifted(edit: OnnxEdit) -> None:
    node = edit.nodes("Greater", "morvit")[0]
    edit.own_constant(node, 1, edit.constant(node, 1) - 1)


def bounds_swapped(edit: OnnxEdit) -> None:
    node = edit.nodes("Greater", "morvit")[0]
    edit.own_constant(node, 1, edit.constant(node, 1)[::-1])


def conditions_swapped(edit: OnnxEdit) -> None:
    first, second, _ = edit.nodes("If", "morvit")
    first.input[0], second.input[0] = second.input[0], first.input[0]


def branches_swapped(edit: OnnxEdit) -> None:
    """The trunk of b1 runs for images that chose another bucket."""
    node = edit.nodes("If", "morvit")[1]
    for attribute in node.attribute:
        attribute.name = {"then_branch": "else_branch", "else_branch": "then_branch"}[attribute.name]


def overflow_ignored(edit: OnnxEdit) -> None:
    """An image that overflowed is not run again."""
    edit.nodes("If", "morvit")[2].input[0] = "is_full"


def results_of_another_bucket(edit: OnnxEdit) -> None:
    """b1's logits are thrown away: what b0 found is returned."""
    node = edit.nodes("If", "morvit")[2]
    keep = next(attribute.g for attribute in node.attribute if attribute.name == "else_branch")
    keep.node[0].input[0] = "until_b0_logits"


def bucket_renumbered(edit: OnnxEdit) -> None:
    edit.after(edit.maker("bucket"), "Add", np.array(1, np.int32))


# the manifest --------------------------------------------------------------------------------------------------


def manifest(name: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    def plant(edit: OnnxEdit) -> None:
        change(edit.manifest)

    plant.__name__ = f"manifest: {name}"
    return plant


def both(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [manifest, manifest["config"]]


def swap_mean_and_std(manifest: dict[str, Any]) -> None:
    for place in (manifest["preprocess"], manifest["config"]["preprocess"]):
        place["mean"], place["std"] = place["std"], place["mean"]


def swap_labels(manifest: dict[str, Any]) -> None:
    labels = manifest["labels"]
    for place in both(manifest):
        place["labels"] = [labels[1], labels[0], *labels[2:]]


def swap_bucket_names(manifest: dict[str, Any]) -> None:
    first, second, _ = manifest["plan"]["buckets"]
    first["name"], second["name"] = second["name"], first["name"]


def one_more_held(manifest: dict[str, Any]) -> None:
    manifest["plan"]["buckets"][0]["capacity"] = [5, 4, 1]


def swap_thresholds(manifest: dict[str, Any]) -> None:
    taus = manifest["plan"]["thresholds"]
    taus[1], taus[2] = taus[2], taus[1]


def rename_a_probe(manifest: dict[str, Any]) -> None:
    manifest["probes"][-1] = "full/step3.something"


def shift_upto(manifest: dict[str, Any]) -> None:
    manifest["plan"]["buckets"][0]["upto"] += 1


def rename_a_probe_in_the_file(edit: OnnxEdit) -> None:
    edit.maker("b0/step1.state").output[0] = "b0/step1.something"
    for node in edit.readers("b0/step1.state"):
        node.input[:] = [{"b0/step1.state": "b0/step1.something"}.get(name, name) for name in node.input]


FAULTS: list[Change] = [
    swap("routers.1.0.weight", "routers.2.0.weight"),
    swap("routers.1.0.bias", "routers.2.0.bias"),
    swap("first.fc1.weight", "last.fc1.weight"),
    swap("first.fc1.bias", "last.fc1.bias"),
    times("cycle.0.fc2.weight", 1.001),
    times("stem.cls", 1.001),
    times("first.norm1.weight", 1.0001),
    times("cycle.0.proj.bias", 0),
    times("routers.0.0.bias", 1.001),
    plus("classifier.head.0.bias", 30),
    plus("last.v.bias", 1e-4),
    one_element_nudged,
    positions_swapped,
    colors_reversed,
    another_blocks_bias,
    weight_hidden_by_its_branch,
    attribute("LayerNormalization", "epsilon", 1e-4),
    attribute("LayerNormalization", "epsilon", 1e-5, "morvit"),
    attribute("LayerNormalization", "axis", 0),
    attribute("Softmax", "axis", 0),
    attribute("Softmax", "axis", -2),
    gelu_by_tanh(),
    attribute("Gemm", "alpha", 1.001),
    attribute("Gemm", "beta", 0.999),
    attribute("TopK", "largest", 0),
    attribute("Transpose", "perm", [1, 0, 2, 3, 4], "morvit"),
    factor_of_attention,
    heads_swapped,
    hidden_keys_seen,
    tanh_for_sigmoid,
    no_residual_gate,
    logits_permuted,
    pixels_halved,
    thresholds_swapped,
    threshold_nudged,
    greater(0),
    greater(1),
    greater(2),
    capacity_of_step(0, 1),
    capacity_of_step(0, -1),
    capacity_of_step(2, 1),
    top_k(1),
    top_k(-1),
    slice_end,
    tokens_shifted,
    overflow("Not"),
    overflow("never"),
    depth_off_by_one,
    depth_of_two_tokens_swapped,
    always_full,
    table_shifted,
    bounds_swapped,
    conditions_swapped,
    branches_swapped,
    overflow_ignored,
    results_of_another_bucket,
    bucket_renumbered,
    rename_a_probe_in_the_file,
    manifest("mean for std", swap_mean_and_std),
    manifest("labels", swap_labels),
    manifest("bucket names", swap_bucket_names),
    manifest("capacity", one_more_held),
    manifest("thresholds", swap_thresholds),
    manifest("probe", rename_a_probe),
    manifest("upto", shift_upto),
]


def table_of_capacities(edit: OnnxEdit) -> None:
    node = next(node for node in edit.nodes("Greater", "stem") if edit.constant(node, 1).ndim == 2)
    edit.own_constant(node, 1, edit.constant(node, 1) - np.array([[0, 1, 0], [0, 0, 0]]))


def deeper_on_a_tie(edit: OnnxEdit) -> None:
    set_attribute(edit.nodes("ArgMax", "stem")[0], "select_last_index", 1)


def deeper_runs_less(edit: OnnxEdit) -> None:
    """depth > layer instead of depth >= layer, at one layer of one trunk."""
    edit.nodes("GreaterOrEqual", "b0")[-1].op_type = "Greater"


PART_FAULTS: list[Change] = [
    table_of_capacities,
    deeper_on_a_tie,
    deeper_runs_less,
    times("routers.0.0.bias", 1.001),
    attribute("LayerNormalization", "epsilon", 1e-5, "b0"),
    gelu_by_tanh("full"),
]


EVERYWHERE: list[Change] = [
    plus("classifier.head.0.bias", 30),
    times("stem.cls", 1.01),
    swap("routers.1.0.weight", "routers.2.0.weight"),
    attribute("LayerNormalization", "epsilon", 1e-4),
    gelu_by_tanh(),
    attribute("Softmax", "axis", 0),
    hidden_keys_seen,
    no_residual_gate,
    thresholds_swapped,
    threshold_nudged,
    greater(1),
    capacity_of_step(0, 1),
    top_k(-1),
    overflow("Not"),
    overflow("never"),
    depth_off_by_one,
    always_full,
    conditions_swapped,
]


def every(ending: str, change: Callable[[Any], Any], name: str) -> Change:
    """Change every initializer whose name ends so: branches may have their own."""

    def plant(edit: OnnxEdit) -> None:
        names = {
            init.name for graph in edit.graphs() for init in graph.initializer if init.name.endswith(ending)
        }
        assert names
        for one in names:
            edit.change(one, change)

    plant.__name__ = name
    return plant


def rounding(place: int, change: Callable[[Any], Any], name: str) -> Change:
    """Change the scale (1) or the zero point (2) of every rounded activation, in Q and DQ alike."""

    def plant(edit: OnnxEdit) -> None:
        for one in {node.input[place] for node in edit.nodes("QuantizeLinear")}:
            edit.change(one, change)

    plant.__name__ = name
    return plant


INTEGERS: list[Change] = [
    every("cycle.0.fc2.weight_scale", lambda values: values * 1.05, "scale of a weight × 1.05"),
    every("cycle.0.fc2.weight", lambda values: values // 2, "a weight of half the range"),
    rounding(1, lambda scale: scale * 1.05, "scales of activations × 1.05"),
    rounding(2, lambda zero: zero + 1, "zero points + 1"),
]


def name_of(change: Any) -> str:
    return str(change.__name__).replace("/", " ")


def test_the_sound_bundle_passes(ladder: Path, tmp_path: Path) -> None:
    """Also when it is written again as the faults are."""
    assert found(edited_onnx(ladder, tmp_path, lambda edit: None), ladder.parent / "checkpoint") == ""


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_a_planted_fault_is_found(ladder: Path, tmp_path: Path, fault: Change) -> None:
    assert found(edited_onnx(ladder, tmp_path, fault), ladder.parent / "checkpoint") != ""


def test_the_sound_parts_pass(parts: Path, tmp_path: Path) -> None:
    assert found(edited_onnx(parts, tmp_path, lambda edit: None), parts.parent / "checkpoint") == ""


@pytest.mark.parametrize("fault", PART_FAULTS, ids=name_of)
def test_a_fault_in_one_part_is_found(parts: Path, tmp_path: Path, fault: Change) -> None:
    assert found(edited_onnx(parts, tmp_path, fault), parts.parent / "checkpoint") != ""


LOW: dict[str, dict[str, Any]] = {
    "fp16": {"precision": "fp16"},
    "int8": {"precision": "int8"},
    "trt int8": {"target": "trt", "flavor": "tensorrt", "precision": "int8"},
}


@pytest.fixture(scope="module", params=LOW.values(), ids=LOW)
def low(request: pytest.FixtureRequest, exported: Callable[..., Path], calibration_folder: Path) -> Path:
    """The ladder below fp32, for two targets."""
    plan = threshold_plan(EXPERT, THRESHOLDS, [(4, 4, 1), (8, 6, 2)], upto=(4, 8))
    images = {"images": calibration_folder} if request.param["precision"] == "int8" else {}
    return exported(
        EXPERT, plan=plan, with_depth=True, dispatch="graph", allow_worse=True, **images, **request.param
    )


@pytest.mark.slow
def test_faults_are_found_in_every_precision(low: Path, tmp_path: Path) -> None:
    """By the structure alone: none of them needs a picture that shows it."""
    inside = "build" if (low / "build").is_dir() else ""
    integers = '"precision": "int8"' in (low / "manifest.json").read_text()
    missed = []
    for number, fault in enumerate([lambda edit: None, *EVERYWHERE, *(INTEGERS if integers else [])]):
        folder = tmp_path / str(number)
        folder.mkdir()
        if (structure(edited_onnx(low, folder, fault, inside), low.parent / "checkpoint") == []) != (
            number == 0
        ):
            missed.append(name_of(fault))
    assert missed == []
