"""The interpreter of saved Core ML packages: rounding, compressed weights, several functions, damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mil_programs import ct, mb, save_program
from torch import nn

from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
from morvit_deploy.exporters.coreml.sdk.load import quiet

SINGLE = 1e-5  # float32 against float32, summed in another order
MODEL = Path("Data") / "com.apple.CoreML" / "model.mlmodel"
WEIGHTS = Path("Data") / "com.apple.CoreML" / "weights" / "weight.bin"
ROWS = {"x": ((4, 32), "fp32")}


class TwoLayers(nn.Module):
    """Enough weights that they are stored in the weight file and that compression takes them."""

    def __init__(self, seed: int = 0, classes: int = 16) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(32, 64), nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.gelu(self.first(x)))


def converted(module: nn.Module, ios: int = 18, precision: str = "FLOAT32", **options: Any) -> Any:
    """A module of one input x (4, 32) as a Core ML model."""
    with quiet():
        exported = torch.export.export(module.eval(), (torch.zeros(4, 32),)).run_decompositions({})
        return ct.convert(
            exported,
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, f"iOS{ios}"),
            compute_precision=getattr(ct.precision, precision),
            skip_model_load=True,
            **options,
        )


@pytest.fixture(scope="module")
def dense_model() -> Any:
    return converted(TwoLayers())


@pytest.fixture(scope="module")
def saved(dense_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "two.mlpackage"
    dense_model.save(str(path))
    return path


@pytest.fixture
def package(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy.mlpackage"))


def image(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, 32)).astype(np.float32)


def test_fp32_is_the_module(saved: Path) -> None:
    package = MilPackage(saved)
    (name,) = package.function("main").outputs
    with torch.no_grad():
        expected = TwoLayers()(torch.from_numpy(image())).numpy()
    np.testing.assert_allclose(package.run("main", {"x": image()})[name], expected, atol=SINGLE, rtol=0)


def test_what_it_says_of_itself(saved: Path) -> None:
    package = MilPackage(saved)
    assert package.functions == ("main",)
    assert {one.name: (one.type.dtype, one.type.shape) for one in package.function("main").inputs} == {
        "x": ("fp32", (4, 32))
    }
    (output,) = package.function("main").outputs
    kind = package.function("main").types[output]
    assert (kind.dtype, kind.shape) == ("fp32", (4, 16))
    stored = [
        op.constant for op in package.function("main").operations if op.type == "const" and op.constant.stored
    ]
    assert sorted(told.type.shape for told in stored) == [(16,), (16, 64), (64,), (64, 32)]
    first = next(told for told in stored if told.type.shape == (64, 32))
    np.testing.assert_array_equal(first.value, TwoLayers().first.weight.detach().numpy())


def test_values_inside_are_answered_by_name(saved: Path) -> None:
    package = MilPackage(saved)
    (gelu,) = [op for op in package.function("main").operations if op.type == "gelu"]
    inside, weight = gelu.outputs[0].name, "first_weight"
    weight = next(op.inputs["weight"][0] for op in package.function("main").operations if op.type == "linear")
    answers = package.run("main", {"x": image()}, keep=[inside, weight])
    assert answers[inside].shape == (4, 64)
    np.testing.assert_array_equal(answers[weight], TwoLayers().first.weight.detach().numpy())
    assert set(package.run("main", {"x": image()})) == set(package.function("main").outputs)
    with pytest.raises(BundleError, match="has no value nowhere"):
        package.run("main", {"x": image()}, keep=["nowhere"])


def test_a_run_leaves_nothing_behind(saved: Path) -> None:
    package = MilPackage(saved)
    first = package.run("main", {"x": image()})
    package.run("main", {"x": image(2)})
    again = package.run("main", {"x": image()})
    assert all((first[name] == again[name]).all() for name in first)


ROUNDED: dict[str, tuple[Callable[..., Any], float, float]] = {  # program of x, x, its answer
    "2048 + 1 has no place": (lambda x: mb.sub(x=mb.add(x=x, y=np.float16(1)), y=np.float16(2048)), 2048.0, 0.0),
    "2049 rounds to even": (lambda x: mb.add(x=mb.add(x=x, y=np.float16(1)), y=np.float16(1)), 2048.0, 2048.0),
    "2050 + 1 rounds to even": (lambda x: mb.sub(x=mb.add(x=x, y=np.float16(1)), y=np.float16(2)), 2050.0, 2050.0),
    "65504 + 15 stays": (lambda x: mb.sub(x=mb.add(x=x, y=np.float16(15)), y=np.float16(32)), 65504.0, 65472.0),
    "65520 is infinite": (lambda x: mb.sub(x=mb.add(x=x, y=np.float16(16)), y=np.float16(32)), 65504.0, np.inf),
    "a product overflows": (lambda x: mb.mul(x=mb.mul(x=x, y=x), y=np.float16(2.0**-10)), 256.0, np.inf),
    "a square overflows": (lambda x: mb.mul(x=x, y=x), 300.0, np.inf),
    "a small square is subnormal": (lambda x: mb.mul(x=mb.mul(x=x, y=x), y=np.float16(1024)), 1.25 / 4096, 2.0**-13),
    "half of the smallest is 0": (lambda x: mb.mul(x=mb.mul(x=x, y=np.float16(0.5)), y=np.float16(2)), 2.0**-24, 0.0),
    "three quarters of it are not": (lambda x: mb.mul(x=x, y=np.float16(0.75)), 2.0**-24, 2.0**-24),
}  # fmt: skip


def test_fp16_rounds_after_every_operation(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        parts = mb.split(x=x, num_splits=len(ROUNDED), axis=0)
        return mb.concat(
            values=[told[0](part) for told, part in zip(ROUNDED.values(), parts, strict=True)], axis=0
        )

    package = MilPackage(save_program(tmp_path / "p.mlpackage", body, {"x": ((len(ROUNDED),), "fp16")}))
    given = np.array([told[1] for told in ROUNDED.values()], np.float16)
    (answer,) = package.run("main", {"x": given}).values()
    assert answer.dtype == np.float16
    assert dict(zip(ROUNDED, answer.tolist(), strict=True)) == {
        name: told[2] for name, told in ROUNDED.items()
    }


def test_an_operation_of_fp16_sums_in_float32(tmp_path: Path) -> None:
    """4096 ones and one half: added one by one in fp16 they would stop at 2048."""
    package = MilPackage(
        save_program(
            tmp_path / "p.mlpackage",
            lambda x: mb.reduce_sum(x=x, axes=[0], keep_dims=True),
            {"x": ((4097,), "fp16")},
        )
    )
    (answer,) = package.run("main", {"x": np.array([0.5, *[1] * 4096], np.float16)}).values()
    assert answer == 4096  # 4096.5 lies between 4096 and 4100


def test_fp16_and_fp32_outputs_have_their_types(tmp_path: Path) -> None:
    path = tmp_path / "p.mlpackage"
    converted(TwoLayers(), precision="FLOAT16", outputs=[ct.TensorType(name="y", dtype=np.float32)]).save(
        str(path)
    )
    package = MilPackage(path)
    answer = package.run("main", {"x": image()})["y"]
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, answer.astype(np.float16))  # what fp16 computed
    with torch.no_grad():
        expected = TwoLayers()(torch.from_numpy(image())).numpy()
    np.testing.assert_allclose(answer, expected, atol=4e-3, rtol=0)  # a few fp16 roundings of numbers near 1


def _quantized(model: Any, dtype: str, **options: Any) -> Any:
    config = ct.optimize.coreml.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype=dtype, weight_threshold=0, **options
    )
    return ct.optimize.coreml.linear_quantize_weights(model, ct.optimize.coreml.OptimizationConfig(config))


def _asymmetric(model: Any) -> Any:
    config = ct.optimize.coreml.OpLinearQuantizerConfig(mode="linear", dtype="uint8", weight_threshold=0)
    return ct.optimize.coreml.linear_quantize_weights(model, ct.optimize.coreml.OptimizationConfig(config))


def _palettized(model: Any, bits: int, **options: Any) -> Any:
    config = ct.optimize.coreml.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=0, **options)
    return ct.optimize.coreml.palettize_weights(model, ct.optimize.coreml.OptimizationConfig(config))


BLOCKS = {"granularity": "per_block", "block_size": 16}
GROUPS = {"granularity": "per_grouped_channel", "group_size": 8}
COMPRESSED: dict[str, tuple[int, str, Callable[[Any], Any]]] = {  # iOS, operation that is written, how
    "int8": (18, "constexpr_blockwise_shift_scale", lambda model: _quantized(model, "int8")),
    "uint8, iOS 18": (18, "constexpr_blockwise_shift_scale", _asymmetric),
    "int4 by block": (
        18,
        "constexpr_blockwise_shift_scale",
        lambda model: _quantized(model, "int4", **BLOCKS),
    ),
    "int8, iOS 17": (17, "constexpr_affine_dequantize", lambda model: _quantized(model, "int8")),
    "uint8, iOS 17": (17, "constexpr_affine_dequantize", _asymmetric),
    **{
        f"palette of {bits} bits": (
            18,
            "constexpr_lut_to_dense",
            lambda model, bits=bits: _palettized(model, bits),
        )
        for bits in (1, 2, 3, 4, 6, 8)
    },
    "palettes by group": (18, "constexpr_lut_to_dense", lambda model: _palettized(model, 4, **GROUPS)),
    "palette, iOS 17": (17, "constexpr_lut_to_dense", lambda model: _palettized(model, 6)),
}


@pytest.fixture(scope="module")
def models(dense_model: Any) -> dict[int, Any]:
    return {18: dense_model, 17: converted(TwoLayers(), ios=17)}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_weights_are_those_that_coremltools_unpacks(
    models: dict[int, Any], name: str, tmp_path: Path
) -> None:
    ios, operation, compress = COMPRESSED[name]
    with quiet():
        model = compress(models[ios])
        unpacked = ct.optimize.coreml.decompress_weights(model)
    model.save(str(tmp_path / "small.mlpackage"))
    unpacked.save(str(tmp_path / "plain.mlpackage"))
    small, plain = MilPackage(tmp_path / "small.mlpackage"), MilPackage(tmp_path / "plain.mlpackage")
    assert operation in {op.type for op in small.function("main").operations}
    assert not any("constexpr" in op.type for op in plain.function("main").operations)
    answers = [next(iter(package.run("main", {"x": image()}).values())) for package in (small, plain)]
    np.testing.assert_array_equal(*answers)
    dense = TwoLayers()(torch.from_numpy(image())).detach().numpy()
    assert (answers[0] != dense).any()


def test_functions_share_their_weights(dense_model: Any, saved: Path, tmp_path: Path) -> None:
    other = TwoLayers(classes=8)
    other.first = TwoLayers().first
    converted(other).save(str(tmp_path / "other.mlpackage"))
    both = ct.utils.MultiFunctionDescriptor()
    both.add_function(str(saved), "main", "wide")
    both.add_function(str(tmp_path / "other.mlpackage"), "main", "narrow")
    both.default_function_name = "wide"
    with quiet():
        ct.utils.save_multifunction(both, str(tmp_path / "both.mlpackage"))
    package = MilPackage(tmp_path / "both.mlpackage")
    assert set(package.functions) == {"wide", "narrow"}
    held = []
    for name, module in (("wide", TwoLayers()), ("narrow", other)):
        (output,) = package.function(name).outputs
        weight = next(
            op.inputs["weight"][0] for op in package.function(name).operations if op.type == "linear"
        )
        answers = package.run(name, {"x": image()}, keep=[weight])
        expected = module(torch.from_numpy(image())).detach().numpy()
        np.testing.assert_allclose(answers[output], expected, atol=SINGLE, rtol=0)
        held.append(package._weights.tensor(package.function(name).constants[weight]).data_ptr())
    assert held[0] == held[1]  # once in memory
    with pytest.raises(BundleError, match=r"no function 'b7'; it has (wide, narrow|narrow, wide)"):
        package.run("b7", {"x": image()})


@pytest.mark.parametrize("labels", [["cat", "dog", "cow", "ant"], [10, 11, 12, 13]], ids=["words", "numbers"])
def test_a_classifier_answers_its_label(labels: list[Any], tmp_path: Path) -> None:
    class Classifier(TwoLayers):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x[:1])

    model = converted(Classifier(classes=4), classifier_config=ct.ClassifierConfig(labels))
    model.save(str(tmp_path / "p.mlpackage"))
    package = MilPackage(tmp_path / "p.mlpackage")
    answers = package.run("main", {"x": image()})
    scores = Classifier(classes=4)(torch.from_numpy(image())).detach().numpy()[0]
    assert answers["classLabel"].item() == labels[int(scores.argmax())]
    np.testing.assert_allclose(answers["classLabel_probs"], scores, atol=SINGLE, rtol=0)


UNKNOWN: dict[str, Callable[[Any], Any]] = {
    "band_part": lambda x: mb.band_part(x=x, lower=1, upper=0, name="one"),
    "floor_div": lambda x: mb.floor_div(x=x, y=np.float32(2), name="one"),
    "cumsum": lambda x: mb.cumsum(x=x, axis=1, name="one"),
    "squeeze": lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[0]), axes=[0], name="one"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_unknown_operation_is_named(tmp_path: Path, kind: str) -> None:
    """Those that coremltools never writes for a model of ours are refused, not guessed."""
    package = MilPackage(save_program(tmp_path / "p.mlpackage", UNKNOWN[kind], ROWS))
    with pytest.raises(TargetError, match=rf"operation {kind} \('one'\) of function 'main'.*not known"):
        package.run("main", {"x": image()})


def test_unknown_compression_is_named(dense_model: Any, tmp_path: Path) -> None:
    """Sparse weights, which no export writes."""
    config = ct.optimize.coreml.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)
    with quiet():
        sparse = ct.optimize.coreml.prune_weights(dense_model, ct.optimize.coreml.OptimizationConfig(config))
    sparse.save(str(tmp_path / "p.mlpackage"))
    with pytest.raises(TargetError, match=r"operation constexpr_sparse_to_dense \(.*not known"):
        MilPackage(tmp_path / "p.mlpackage").run("main", {"x": image()})


def edited(package: Path, change: Callable[[Any], None]) -> MilPackage:
    """The package after a change to its program's operations."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    function = model.mlProgram.functions["main"]
    change(function.block_specializations[function.opset].operations)
    (package / MODEL).write_bytes(model.SerializeToString())
    return MilPackage(package)


def of_type(operations: Any, kind: str) -> Any:
    return next(op for op in operations if op.type == kind)


def test_an_unknown_parameter_is_named(package: Path) -> None:
    def change(operations: Any) -> None:
        gelu = of_type(operations, "gelu")
        gelu.inputs["sharpness"].CopyFrom(gelu.inputs["mode"])

    with pytest.raises(TargetError, match=r"operation gelu .* parameter 'sharpness' is not known"):
        edited(package, change).run("main", {"x": image()})


def test_a_parameter_that_must_be_constant(package: Path) -> None:
    def change(operations: Any) -> None:
        of_type(operations, "gelu").inputs["mode"].arguments[0].name = "x"

    with pytest.raises(TargetError, match="parameter 'mode' is computed"):
        edited(package, change).run("main", {"x": image()})


def test_an_unknown_mode(package: Path) -> None:
    def change(operations: Any) -> None:
        mode = next(op for op in operations if "gelu" in op.outputs[0].name and op.type == "const")
        mode.attributes["val"].immediateValue.tensor.strings.values[0] = "CUBIC"

    with pytest.raises(TargetError, match="mode 'CUBIC'"):
        edited(package, change).run("main", {"x": image()})


def test_an_index_that_is_outside(tmp_path: Path) -> None:
    package = MilPackage(
        save_program(
            tmp_path / "p.mlpackage",
            lambda x, i: mb.gather(x=x, indices=i, axis=0),
            ROWS | {"i": ((2,), "int32")},
        )
    )
    with pytest.raises(BundleError, match=r"gather .*indices from 0 to 4 of an axis of 4"):
        package.run("main", {"x": image(), "i": np.array([0, 4], np.int32)})


def _reads_nothing(operations: Any) -> None:
    of_type(operations, "gelu").inputs["x"].arguments[0].name = "ghost"


def _wrong_shape(operations: Any) -> None:
    of_type(operations, "gelu").outputs[0].type.tensorType.dimensions[0].constant.size = 5


def _wrong_type(operations: Any) -> None:
    from coremltools.proto import MIL_pb2

    of_type(operations, "gelu").outputs[0].type.tensorType.dataType = MIL_pb2.DataType.INT32


def _no_weight(operations: Any) -> None:
    del of_type(operations, "linear").inputs["weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_reads_nothing, "reads 'ghost', which nothing computes"),
        (_wrong_shape, r"shape \(4, 64\), the package says \(5, 64\)"),
        (_wrong_type, "the package says int32"),
        (_no_weight, "it has no weight"),
    ],
)
def test_a_program_that_was_changed(package: Path, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        edited(package, change).run("main", {"x": image()})


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, r"takes \['x'\], it was given \[\]"),
        ({"x": np.zeros((4, 31), np.float32)}, r"is fp32 \(4, 32\), it was given float32 \(4, 31\)"),
        ({"x": np.zeros((4, 32), np.float64)}, "given float64"),
        ({"x": np.zeros((4, 32), np.float32), "y": np.zeros(1)}, r"given \['x', 'y'\]"),
    ],
)
def test_feeds_that_do_not_fit(saved: Path, feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        MilPackage(saved).run("main", feeds)


def test_no_package(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"Manifest\.json names no model"):
        MilPackage(tmp_path / "absent.mlpackage")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rootModelIdentifier": "a", "itemInfoEntries": {}}'])
def test_a_manifest_that_names_nothing(package: Path, text: str) -> None:
    (package / "Manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"Manifest\.json names no model"):
        MilPackage(package)


def test_a_manifest_that_leads_outside(package: Path) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = "../../other.mlmodel"
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="not inside the package"):
        MilPackage(package)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_weights_that_were_cut_off(package: Path, share: float) -> None:
    content = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(content[: int(share * len(content))])
    with pytest.raises(BundleError, match=r"weight\.bin: "):
        MilPackage(package)


def test_weights_that_are_missing(package: Path) -> None:
    (package / WEIGHTS).unlink()
    with pytest.raises(BundleError, match="the weights cannot be read"):
        MilPackage(package)


def test_weights_of_another_package(package: Path, tmp_path: Path) -> None:
    converted(TwoLayers(), precision="FLOAT16").save(str(tmp_path / "half.mlpackage"))
    shutil.copy(tmp_path / "half.mlpackage" / WEIGHTS, package / WEIGHTS)
    with pytest.raises(BundleError, match=r"expects \d+ bytes of fp32"):
        MilPackage(package)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64], ids=["empty", "noise"])
def test_a_model_that_is_none(package: Path, content: bytes) -> None:
    (package / MODEL).write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.mlmodel"):
        MilPackage(package)


def test_a_model_that_was_cut_off(package: Path) -> None:
    content = (package / MODEL).read_bytes()
    (package / MODEL).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=r"model\.mlmodel"):
        MilPackage(package)


def test_a_neural_network_is_no_program(package: Path) -> None:
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.neuralNetwork.SetInParent()
    (package / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="of type neuralNetwork, expected mlProgram"):
        MilPackage(package)
