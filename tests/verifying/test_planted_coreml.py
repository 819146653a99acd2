"""A mutation test of the verifier: every fault planted in a written Core ML bundle is found.

Faults are in the program, in its weights, and in the copies of the truth that an app reads: class names, description,
model card, MoRViTKit. Hashes are made to fit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptive_plans import threshold_plan
from bucket_plans import EXPERT
from mil_edits import Edit
from planted import FALSE_COPIES, FALSE_LABELS, edited, found, name_of
from tiny_models import make_config

from morvit_deploy.exporters.coreml.contract.names import PACKAGE

THRESHOLDS = (0.3, 0.0, -0.2)
LABELS = tuple(f"class {number}" for number in range(10))

Change = Callable[[Edit], Any]


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def ladder(request: pytest.FixtureRequest, exported: Callable[..., Path]) -> Path:
    """Thresholds and three buckets."""
    plan = threshold_plan(EXPERT, THRESHOLDS, [(4, 4, 1), (8, 6, 2)], upto=(4, 8))
    options: dict[str, Any] = {"allow_worse": True} if request.param == "fp16" else {"precision": "fp32"}
    return exported(EXPERT, plan=plan, target="coreml", with_depth=True, **options)


@pytest.fixture(scope="module")
def classifier(exported: Callable[..., Path]) -> Path:
    """One function that returns a class."""
    return exported(make_config(labels=LABELS), target="coreml", precision="fp32")


def scalar(values: Any, kind: type[Any] = np.float16) -> Any:
    """The first number of a constant; numbers of two bytes are stored as bytes."""
    return np.frombuffer(values.values, kind)[0] if isinstance(values.values, bytes) else values.values[0]


def set_scalar(values: Any, number: Any, kind: type[Any] = np.float16) -> None:
    if isinstance(values.values, bytes):
        values.values = np.asarray(number, kind).tobytes() + values.values[np.dtype(kind).itemsize :]
    else:
        values.values[0] = number


def change(function: str, kind: str, parameter: str, new: Callable[[Any], Any], number: int = 0) -> Change:
    """Change a constant parameter of an operation."""

    def plant(edit: Edit) -> None:
        values = edit.constant(function, edit.operation(function, kind, number), parameter)
        set_scalar(values, new(scalar(values)))

    plant.__name__ = f"{kind} {number} {parameter}"
    return plant


def comparisons(edit: Edit, threshold: float) -> list[Any]:
    """Operations of b0 that compare with a threshold."""
    found = [op for op in edit.block("b0").operations if op.type == "greater_equal"]
    constants = [edit.constant("b0", op, "y") for op in found]
    return [
        op
        for op, values in zip(found, constants, strict=True)
        if values.DESCRIPTOR.name != "RepeatedInts" and abs(scalar(values) - threshold) < 1e-3
    ]


def threshold_nudged(edit: Edit) -> None:
    """To the next number of the package's precision."""
    for operation in comparisons(edit, THRESHOLDS[2]):
        values = edit.constant("b0", operation, "y")
        kind = np.float16 if isinstance(values.values, bytes) else np.float32
        set_scalar(values, np.nextafter(kind(scalar(values)), kind(9)))


def greater(step: int) -> Change:
    def plant(edit: Edit) -> None:
        for operation in comparisons(edit, THRESHOLDS[step]):
            operation.type = "greater"

    plant.__name__ = f"> at step {step + 1}"
    return plant


def another_kind(function: str, kind: str, other: str, number: int = 0) -> Change:
    def plant(edit: Edit) -> None:
        edit.operation(function, kind, number).type = other

    plant.__name__ = f"{other} for {kind} {number}"
    return plant


def thresholds_swapped(edit: Edit) -> None:
    """Of the second and the third step in one bucket."""
    second, third = (comparisons(edit, threshold) for threshold in THRESHOLDS[1:])
    assert second and third
    for operations, threshold in ((second, THRESHOLDS[2]), (third, THRESHOLDS[1])):
        for operation in operations:
            set_scalar(edit.constant("b0", operation, "y"), threshold)


def weights_swapped(edit: Edit) -> None:
    first, second = (edit.operation("b0", "linear", number) for number in (0, 4))
    one, other = (operation.inputs["bias"].arguments[0] for operation in (first, second))
    one.name, other.name = other.name, one.name


def table_shifted(edit: Edit) -> None:
    values = edit.constant("stem", edit.operation("stem", "greater"), "y")
    set_scalar(values, scalar(values, np.int16) + 1, np.int16)


def gelu_by_tanh(edit: Edit) -> None:
    values = edit.constant("b0", edit.operation("b0", "gelu"), "mode").values
    values[0] = "TANH_APPROXIMATION"


PROGRAM: list[Change] = [
    threshold_nudged,
    thresholds_swapped,
    greater(0),
    greater(1),
    greater(2),
    another_kind("b0", "sigmoid", "tanh"),
    another_kind("full", "gelu", "relu"),
    gelu_by_tanh,
    change("b0", "layer_norm", "epsilon", lambda value: 1e-3),
    change("b0", "softmax", "axis", lambda value: -2),
    change("b0", "topk", "ascending", lambda value: not value),
    weights_swapped,
    table_shifted,
]


# what an app reads ---------------------------------------------------------------------------------------------


def class_order(edit: Edit) -> None:
    (operation,) = (op for op in edit.block("main").operations if op.type == "classify")
    values = operation.inputs["classes"].arguments[0].value.immediateValue.list.values
    first, second = (values[number].immediateValue.tensor.strings for number in (0, 1))
    first.values[0], second.values[0] = second.values[0], first.values[0]


def blue_first(edit: Edit) -> None:
    from coremltools.proto.FeatureTypes_pb2 import ImageFeatureType

    edit.spec.description.input[0].type.imageType.colorSpace = ImageFeatureType.BGR


def another_size(edit: Edit) -> None:
    edit.spec.description.input[0].type.imageType.width = 64


def another_shape(edit: Edit) -> None:
    port = next(port for port in edit.spec.description.output if port.name == "logits")
    port.type.multiArrayType.shape[1] = 1000


def another_prediction(edit: Edit) -> None:
    edit.spec.description.predictedProbabilitiesName = "logits"


def another_checkpoint(edit: Edit) -> None:
    edit.spec.description.metadata.userDefined["morvit.checkpoint.sha256"] = "0" * 64


def another_plan_on_the_card(edit: Edit) -> None:
    card = edit.spec.description.metadata.userDefined
    card["morvit.plan"] = card["morvit.plan"].replace('"topk"', '"threshold"')


def another_normalization_on_the_card(edit: Edit) -> None:
    card = edit.spec.description.metadata.userDefined
    card["morvit.preprocess"] = card["morvit.preprocess"].replace("0.4", "0.5")


def another_sentence(edit: Edit) -> None:
    edit.spec.description.metadata.shortDescription = "Finds cats."


def another_port_text(edit: Edit) -> None:
    edit.spec.description.input[0].shortDescription = "A BGR picture."


COPIES: list[Change] = [
    class_order,
    blue_first,
    another_size,
    another_shape,
    another_prediction,
    another_checkpoint,
    another_plan_on_the_card,
    another_normalization_on_the_card,
    another_sentence,
    another_port_text,
    *FALSE_LABELS,
    *FALSE_COPIES,
]


def test_the_sound_packages_pass(ladder: Path, classifier: Path, tmp_path: Path) -> None:
    for number, bundle in enumerate((ladder, classifier)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert (
            found(edited(bundle, folder, PACKAGE, Edit, lambda edit: None), bundle.parent / "checkpoint")
            == ""
        )


@pytest.mark.parametrize("fault", PROGRAM, ids=name_of)
def test_a_fault_in_the_program_is_found(ladder: Path, tmp_path: Path, fault: Change) -> None:
    assert found(edited(ladder, tmp_path, PACKAGE, Edit, fault), ladder.parent / "checkpoint") != ""


@pytest.mark.parametrize("fault", COPIES, ids=name_of)
def test_a_false_copy_is_found(classifier: Path, tmp_path: Path, fault: Change) -> None:
    assert found(edited(classifier, tmp_path, PACKAGE, Edit, fault), classifier.parent / "checkpoint") != ""
