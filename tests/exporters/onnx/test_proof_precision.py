"""The structure proof of graphs below fp32 finds planted defects and names them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_models import make_config, random_model

from morvit_deploy import export
from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.exporters.onnx.export import OnnxExporter
from morvit_deploy.exporters.onnx.proof import prove
from morvit_deploy.exporters.verification import options_of
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.lowering import lower
from morvit_deploy.machine import integer_kernels
from morvit_deploy.machine.integer_kernels import IntegerKernels
from morvit_deploy.model.checkpoint import load_checkpoint, save_checkpoint

WIDE: dict[str, Any] = {"embed_dim": 64, "mlp_dim": 128, "num_heads": 4}
KERNELS = {"8 bits": IntegerKernels("avx512_vnni", False), "7 bits": IntegerKernels("avx2", True)}
Plant = Callable[[onnx.ModelProto], None]


class Written:
    """A good bundle, and the proof of its graph after a change."""

    def __init__(self, bundle: Path) -> None:
        self.bundle, self.manifest = bundle, open_manifest(bundle)
        model = load_checkpoint(bundle.parent / "checkpoint")
        self.graphs = build_graphs(
            "unrolled", model, self.manifest.plan, options_of(OnnxExporter(), self.manifest)
        )
        lower(self.graphs, self.manifest.precision, self.manifest.lowering)

    def prove(self, folder: Path, plant: Plant, manifest: Manifest | None = None) -> str:
        """The violations, a line each."""
        model = onnx.load(self.bundle / "model.onnx")
        plant(model)
        onnx.save_model(model, folder / "model.onnx")
        return "\n".join(prove(folder, manifest or self.manifest, self.graphs).violations)


@pytest.fixture(scope="module", params=KERNELS.values(), ids=KERNELS)
def int8(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, calibration_folder: Path
) -> Written:
    """As each kind of processor has it made: with 8-bit weights, and with 7-bit ones where sums saturate."""
    folder = tmp_path_factory.mktemp("int8")
    save_checkpoint(random_model(make_config(**WIDE)), folder / "checkpoint")
    options: dict[str, Any] = {"precision": "int8", "images": calibration_folder, "allow_worse": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer_kernels, "kernels_here", lambda: request.param)
        export(folder / "checkpoint", folder / "bundle", limit=12, **options)
    return Written(folder / "bundle")


@pytest.fixture(scope="module")
def fp16(exported: Callable[..., Path]) -> Written:
    return Written(exported(make_config(**WIDE), precision="fp16", min_agreement=0.5))


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(init for init in model.graph.initializer if init.name == name)


def readers(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if name in node.input]


def change(model: onnx.ModelProto, name: str, how: Callable[[np.ndarray], None]) -> None:
    init = initializer(model, name)
    array = numpy_helper.to_array(init).copy()
    how(array)
    init.CopyFrom(numpy_helper.from_array(array, name))


def leave_alone(model: onnx.ModelProto) -> None:
    pass


def another_integer(model: onnx.ModelProto) -> None:
    def off_by_one(array: np.ndarray) -> None:
        array[0, 0] += 1 if array[0, 0] < 127 else -1

    change(model, "cycle.0.fc1.weight", off_by_one)


def another_scale(model: onnx.ModelProto) -> None:
    change(model, "cycle.0.fc1.weight_scale", lambda array: array.__imul__(1.05))


def coarse_weight(model: onnx.ModelProto) -> None:
    """Four bits in eight: every element is near the weight's, the range is half empty."""
    change(model, "first.fc2.weight_scale", lambda array: array.__imul__(2))
    change(model, "first.fc2.weight", lambda array: np.copyto(array, np.rint(array / 2).astype(np.int8)))


def second_copy(model: onnx.ModelProto) -> None:
    copy = initializer(model, "cycle.0.fc1.weight")
    model.graph.initializer.add().CopyFrom(copy)
    model.graph.initializer[-1].name = "planted"
    node = readers(model, "cycle.0.fc1.weight")[0]
    twin = helper.make_node("DequantizeLinear", ["planted", *node.input[1:]], ["planted_wide"], axis=1)
    twin.name = "planted"
    model.graph.node.insert(0, twin)
    product = readers(model, node.output[0])[1]
    product.input[1] = "planted_wide"


def float_copy(model: onnx.ModelProto) -> None:
    """Nobody reads it, but it lies in the file."""
    values = numpy_helper.to_array(initializer(model, "cycle.0.fc1.weight")).astype(np.float32)
    values *= numpy_helper.to_array(initializer(model, "cycle.0.fc1.weight_scale"))
    model.graph.initializer.append(numpy_helper.from_array(values, "planted"))


def quantised_softmax(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Softmax")
    widened = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    place = list(model.graph.node).index(node)
    source, parameters = node.input[0], widened.input[1:]
    node.input[0] = "planted_wide"
    model.graph.node.insert(
        place, helper.make_node("QuantizeLinear", [source, *parameters], ["planted_narrow"], name="planted_q")
    )
    model.graph.node.insert(
        place + 1,
        helper.make_node(
            "DequantizeLinear", ["planted_narrow", *parameters], ["planted_wide"], name="planted"
        ),
    )


def router_on_a_rounded_state(model: onnx.ModelProto) -> None:
    node = readers(model, "routers.1.0.weight")[0]
    node.input[0] = next(n for n in model.graph.node if n.output[0] == "layer_norm_wide").output[0]


def leave_one_step_out(model: onnx.ModelProto) -> None:
    products = readers(model, "cycle.0.fc1.weight_wide")
    products[1].input[1] = "first.fc1.weight_wide"


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (another_integer, ["'cycle.0.fc1.weight'", "stands for no weight of the model", "stored 0 times"]),
        (another_scale, ["'cycle.0.fc1.weight'", "stands for no weight of the model"]),
        (coarse_weight, ["'first.fc2.weight'", "stands for no weight of the model"]),
        (second_copy, ["weight 'cycle.0.fc1.weight' is stored 2 times", "planted"]),
        (float_copy, ["'planted'", "no weight of the model"]),
        (quantised_softmax, ["(Softmax)", "only a product of a quantised activation"]),
        (router_on_a_rounded_state, ["(Gemm)", "only a product of a quantised activation"]),
        (leave_one_step_out, ["'cycle.0.fc1.weight' is applied 2 times, expected 3"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_defect_is_named(int8: Written, plant: Plant, named: list[str], tmp_path: Path) -> None:
    told = int8.prove(tmp_path, plant)
    for words in named:
        assert words in told


def test_the_files_as_written_are_proved(int8: Written, fp16: Written, tmp_path: Path) -> None:
    assert int8.prove(tmp_path, leave_alone) == ""
    assert fp16.prove(tmp_path, leave_alone) == ""


def test_the_manifest_says_how_many_bits_weights_have(int8: Written, tmp_path: Path) -> None:
    lowering = int8.manifest.lowering
    assert lowering is not None
    told = lowering.weight_bits, lowering.instruction_set, lowering.largest_weight
    assert told in ((7, "avx2", 64), (8, "avx512_vnni", 127))
    other = lowering.model_copy(update={"weight_bits": 15 - told[0]})
    manifest = int8.manifest.model_copy(update={"lowering": other})
    assert "stands for no weight of the model" in int8.prove(tmp_path, leave_alone, manifest)


def test_a_manifest_without_the_bits_means_eight(int8: Written, tmp_path: Path) -> None:
    fields = json.loads(int8.manifest.to_json())
    bits = fields["lowering"].pop("weight_bits")
    del fields["lowering"]["instruction_set"]
    older = Manifest.model_validate_json(json.dumps(fields))
    assert (int8.prove(tmp_path, leave_alone, older) == "") == (bits == 8)


def test_the_exact_float_weight_beside_its_integers_is_named(int8: Written, tmp_path: Path) -> None:
    values = next(iter(int8.graphs.values())).blocks["cycle_0"].fc1.weight.numpy()

    def plant(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(values, "planted"))

    assert "a float copy of the int8 weight 'cycle.0.fc1.weight' is left: ['planted']" in int8.prove(
        tmp_path, plant
    )


def test_activations_of_another_flavor_are_named(int8: Written, tmp_path: Path) -> None:
    assert int8.manifest.lowering is not None
    other = int8.manifest.lowering.model_copy(update={"flavor": "trt"})
    manifest = int8.manifest.model_copy(update={"lowering": other})
    told = int8.prove(tmp_path, leave_alone, manifest)
    assert "rounds to another type than flavor 'trt' requires" in told


def test_integers_in_a_bundle_that_says_fp32_are_named(int8: Written, tmp_path: Path) -> None:
    manifest = int8.manifest.model_copy(update={"precision": "fp32", "lowering": None})
    assert "fp32 with int8 weights" in int8.prove(tmp_path, leave_alone, manifest)


def narrow_softmax(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Softmax")
    place, (source, out) = list(model.graph.node).index(node), (node.input[0], node.output[0])
    node.input[0], node.output[0] = "planted_in", "planted_out"
    half, whole = TensorProto.FLOAT16, TensorProto.FLOAT
    model.graph.node.insert(
        place, helper.make_node("Cast", [source], ["planted_in"], name="planted", to=half)
    )
    model.graph.node.insert(
        place + 2, helper.make_node("Cast", ["planted_out"], [out], name="planted_2", to=whole)
    )


def test_a_softmax_in_fp16_is_named(fp16: Written, tmp_path: Path) -> None:
    assert "(Softmax) computes in fp16, expected fp32" in fp16.prove(tmp_path, narrow_softmax)
