"""Pieces on a folder of images: each in its own bucket, nothing kept, and a broken value names its node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from bucket_plans import EXPERT, threshold_ladder
from onnx import numpy_helper
from tiny_models import make_config, normalised, random_model

from morvit_deploy.bundle.images import ImageFolder, open_images
from morvit_deploy.errors import CheckpointError, TargetError
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.graphs.assembly import STEM, WHOLE, Pieces, trace_pieces
from morvit_deploy.exporters.onnx.low.linears import linears
from morvit_deploy.exporters.onnx.low.observe import ENOUGH, Observer, Stream, first_not_finite, open_session
from morvit_deploy.exporters.onnx.low.ranges import PIXELS, ranges_of, smoothing_of
from morvit_deploy.graph.style.styles import Options, style_for_batch
from morvit_deploy.graph.unroll import unroll_plan
from morvit_deploy.model.plan import Plan, own_plan
from morvit_deploy.model.trace import Routing

CLOSE = 1e-4  # × max(1, max |logit|): float32 against the float64 reference


@pytest.fixture(scope="module")
def folder(calibration_folder: Path) -> ImageFolder:
    return open_images(calibration_folder, EXPERT)


def pieces_of(plan: Plan, batch: int = 1, inside: bool = False) -> Pieces:
    graphs = unroll_plan(random_model(EXPERT), plan, Options(style=style_for_batch(batch)))
    image = example_image(next(iter(graphs.values())), batch)
    return trace_pieces(graphs, plan, image, dynamic=False, inside=inside)


def observed(plan: Plan, folder: ImageFolder, batch: int = 1) -> Observer:
    observer = Observer(pieces_of(plan, batch), plan, Stream(folder, batch, True))
    observer.choose()
    return observer


@pytest.mark.parametrize("batch", [1, 5])
def test_each_image_goes_where_the_bundle_sends_it(folder: ImageFolder, batch: int) -> None:
    plan = threshold_ladder()
    observer = observed(plan, folder, batch)
    model = random_model(EXPERT).double()
    outcome = model(normalised(EXPERT, folder.all()), Routing(plan.thresholds))
    counts = np.array([trace.counts for trace in outcome.traces])
    bucket, _ = plan.dispatched(counts)
    for image, number in enumerate(bucket):
        assert image in observer.served[plan.buckets[number].name]
    expected = outcome.logits.numpy()
    assert np.abs(observer.logits() - expected).max() <= CLOSE * max(1, np.abs(expected).max())


def test_a_bucket_with_few_images_borrows_others_and_says_so(folder: ImageFolder) -> None:
    observer = observed(threshold_ladder(), folder)
    facts = observer.counted()
    assert facts[STEM].images == len(folder)
    for name, images in observer.served.items():
        assert facts[name].images == max(len(images), ENOUGH)
        assert facts[name].forced == max(0, ENOUGH - len(images))


def test_ranges_are_those_of_every_image(folder: ImageFolder) -> None:
    observer = observed(own_plan(EXPERT), folder)
    ranges = ranges_of(observer, "minmax", symmetric=False)[WHOLE]
    one = Observer(observer.pieces, observer.plan, Stream(folder, 1, True))
    largest: dict[str, float] = {}

    def see(part: str, name: str, value: np.ndarray) -> None:
        largest[name] = max(largest.get(name, -np.inf), float(value.max()))

    one.visit({WHOLE: list(ranges)}, see)
    patch = next(one for one in linears(observer.pieces.parts[WHOLE]) if one.weight == "stem.patch.weight")
    assert ranges.pop(patch.input) == PIXELS, "raw pixels have a range of their own, whatever the images"
    assert {name: high for name, (_, high) in ranges.items()} == {name: largest[name] for name in ranges}
    applied = [one.input for one in linears(observer.pieces.parts[WHOLE]) if one.layer == "cycle.0.fc1"]
    assert len({ranges[name] for name in applied}) == 3, "a shared layer has a range for each of its steps"


def test_a_smoothing_vector_belongs_to_all_steps_of_its_block(folder: ImageFolder) -> None:
    plan = own_plan(EXPERT)
    graph = unroll_plan(random_model(EXPERT), plan, Options())["topk"]
    factors = smoothing_of(observed(plan, folder), graph)
    assert set(factors) >= {"first.norm1", "cycle.0.norm1", "cycle.0.v", "cycle.0.norm2", "classifier.norm"}
    assert all(len(powers) == EXPERT.embed_dim for powers in factors.values())


def spoil(pieces: Pieces, weight: str) -> None:
    init = next(init for init in pieces.parts[WHOLE].graph.initializer if init.name == weight)
    array = numpy_helper.to_array(init).copy()
    array[:] = 3e38
    init.CopyFrom(numpy_helper.from_array(array, weight))


def test_an_overflow_names_its_node(folder: ImageFolder) -> None:
    plan = own_plan(EXPERT)
    pieces = pieces_of(plan)
    spoil(pieces, "cycle.0.fc1.weight")
    broken = next(one for one in linears(pieces.parts[WHOLE]) if one.weight == "cycle.0.fc1.weight")
    observer = Observer(pieces, plan, Stream(folder, 1, True))
    observer.choose()
    with pytest.raises(CheckpointError, match=rf"node '{broken.node}' \(Gemm.*NaN or Inf for 00.png"):
        ranges_of(observer, "minmax", symmetric=False)


def test_a_mask_is_no_overflow() -> None:
    mask = numpy_helper.from_array(np.array([-np.inf, 0.0], dtype=np.float32), "mask")
    nodes = [
        onnx.helper.make_node("Add", ["x", "mask"], ["masked"], name="masks"),
        onnx.helper.make_node("Mul", ["x", "x"], ["square"], name="overflows"),
    ]
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])
        for name in ("x", "masked", "square")
    ]
    graph = onnx.helper.make_graph(nodes, "g", ports[:1], ports[1:], [mask])
    opset = onnx.helper.make_opsetid("", 20)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    assert first_not_finite(model, {"x": np.array([1e30, 1], dtype=np.float32)}).startswith("'overflows'")


@pytest.mark.parametrize(
    ("op_type", "opset", "words"), [("NoSuchOp", 20, "NoSuchOp"), ("Add", 999, "opset 999")]
)
def test_a_graph_that_the_runtime_cannot_take_is_told_by_operator(
    op_type: str, opset: int, words: str
) -> None:
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    node = onnx.helper.make_node(op_type, ["x", "x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:])
    imports = [onnx.helper.make_opsetid("", opset)]
    with pytest.raises(TargetError, match=words):
        open_session(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10))


def test_the_tiny_model_is_the_ladders() -> None:
    assert make_config() == EXPERT
