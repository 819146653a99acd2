"""The text that Core AI prints of a program, read without Core AI."""

from __future__ import annotations

import numpy as np
import pytest

from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreai.printed.macs import count_macs, static_violations
from morvit_deploy.exporters.coreai.printed.program import ProgramText, Type
from morvit_deploy.exporters.coreai.printed.unpack import split_bytes
from morvit_deploy.exporters.functions.macs import Macs

TEXT = """module {
  coreai.graph private noinline @norm_abc(%arg0: tensor<2x4xf32> {coreai.name = "input"}) -> tensor<2x4xf32> {
    %0 = coreai.constant dense<9.99999997E-7> : tensor<f32>
    %1 = coreai.decomposable.broadcasting_add %arg0, %0 : (tensor<2x4xf32>, tensor<f32>) -> tensor<2x4xf32>
    coreai.output %1 : tensor<2x4xf32>
  }
  coreai.graph @main(%arg0: tensor<2x4xf32> {coreai.name = "image"}) -> (tensor<2x2xf32> {coreai.name = "logits"}) {
    %0 = coreai.constant dense_resource<held> : tensor<2x4xf32>
    %1 = coreai.constant dense<[1, 0]> : tensor<2xui32>
    %2 = coreai.constant dense<"0x0000803F00000040"> : tensor<2xf32>
    %3 = coreai.constant dense<true> : tensor<i1>
    %4 = coreai.constant dense<0x7F800000> : tensor<f32>
    %5 = coreai.transpose %0, %1 : (tensor<2x4xf32>, tensor<2xui32>) -> tensor<4x2xf32>
    %6 = coreai.invoke @norm_abc(%arg0)  : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %7 = coreai.decomposable.broadcasting_batch_matmul %6, %5 : (tensor<2x4xf32>, tensor<4x2xf32>) -> tensor<2x2xf32>
    %8 = coreai.decomposable.broadcasting_equal %7, %2 : (tensor<2x2xf32>, tensor<2xf32>) -> tensor<2x2xi1>
    %9 = coreai.cast %8 : tensor<2x2xi1> to tensor<2x2xf32>
    %10 = coreai.decomposable.broadcasting_batch_matmul %9, %7 : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
    %11:2 = coreai.split %10, %1, %3 : (tensor<2x2xf32>, tensor<2xui32>, tensor<i1>) -> (tensor<1x2xf32>, tensor<1x2xf32>)
    coreai.output %10 : tensor<2x2xf32>
  }
}

{-#
  dialect_resources: {
    builtin: {
      held: "0x040000000000803F00000040000040400000804000000000000000000000000000000000"
    }
  }
#-}
"""  # noqa: E501


@pytest.fixture(scope="module")
def program() -> ProgramText:
    return ProgramText(TEXT)


def test_functions_and_ports(program: ProgramText) -> None:
    (main,) = program.functions
    assert list(program.graphs) == ["norm_abc", "main"]
    assert main.inputs == {"image": Type((2, 4), "f32")} and main.outputs == {"logits": Type((2, 2), "f32")}


def test_constants_of_every_form(program: ProgramText) -> None:
    (main,) = program.functions
    found = [program.array(main.makers[str(number)]) for number in range(5)]
    assert found[0].tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]] and found[0].dtype == np.float32
    assert found[1].tolist() == [1, 0] and found[1].dtype == np.uint32
    assert found[2].tolist() == [1, 2] and found[3].item() is True and np.isinf(found[4])


def test_a_turned_constant_is_found(program: ProgramText) -> None:
    (main,) = program.functions
    assert main.constant("5") == main.makers["0"] and main.constant("7") is None


def test_products_that_select_are_counted_apart(program: ProgramText) -> None:
    (main,) = program.functions
    assert count_macs(main) == Macs(products=2 * 2 * 4, selection=2 * 2 * 2)


def test_what_depends_on_the_image_is_named() -> None:
    (main,) = ProgramText(
        TEXT.replace("coreai.split %10", "coreai.non_zero %10").replace(
            "tensor<1x2xf32>)", "tensor<?x2xf32>)"
        )
    ).functions
    operation, dimension = static_violations(main)
    assert operation == "main: operation non_zero (%11)" and "open dimension: (None, 2)" in dimension


def test_a_constant_of_another_form_is_refused() -> None:
    (main,) = (program := ProgramText(TEXT.replace("dense<true>", "dense<maybe>"))).functions
    with pytest.raises(BundleError, match="written in an unknown way"):
        program.array(main.makers["3"])


COMPRESSED = """module {
  coreai.graph @main(%arg0: tensor<2x4xf32> {coreai.name = "image"}) -> (tensor<2x2xf32> {coreai.name = "logits"}) {
    %0 = coreai.constant dense_resource<data> : tensor<4x2xsi4>
    %1 = coreai.constant dense<[[0.5, 2.0], [1.0, 4.0]]> : tensor<2x2xf32>
    %2 = coreai.constant dense<0> : tensor<2x2xsi4>
    %3 = coreai.constant dense<0.000000e+00> : tensor<2x2xf32>
    %4 = coreai.blockwise_shift_scale %0, %1, %2, %3 : (tensor<4x2xsi4>, tensor<2x2xf32>, tensor<2x2xsi4>, tensor<2x2xf32>) -> tensor<4x2xf32>
    %5 = coreai.constant dense_resource<indices> : tensor<2x2xui6>
    %6 = coreai.constant dense<[[[[1.0], [2.0], [3.0]]]]> : tensor<1x1x3x1xf32>
    %7 = coreai.constant dense<0> : tensor<si16>
    %8 = coreai.lut_to_dense %5, %6, %7 : (tensor<2x2xui6>, tensor<1x1x3x1xf32>, tensor<si16>) -> tensor<2x2xf32>
    %9 = coreai.decomposable.broadcasting_batch_matmul %arg0, %4 : (tensor<2x4xf32>, tensor<4x2xf32>) -> tensor<2x2xf32>
    %10 = coreai.decomposable.broadcasting_batch_matmul %9, %8 : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
    coreai.output %10 : tensor<2x2xf32>
  }
}

{-#
  dialect_resources: {
    builtin: {
      data: "0x10000000F1E2D3C4",
      indices: "0x10000000002008"
    }
  }
#-}
"""  # noqa: E501


def test_compressed_weights_are_unpacked() -> None:
    (main,) = (program := ProgramText(COMPRESSED)).functions
    quantized, palette = main.constant("4"), main.constant("8")
    assert quantized is not None and palette is not None
    assert program.array(quantized).tolist() == [[0.5, -2], [1, -4], [3, -12], [4, -16]]
    assert program.array(palette).tolist() == [[1, 1], [3, 3]]
    assert program.array(quantized) is program.array(quantized)  # unpacked once
    assert program.stored_bytes(quantized.parts[0]) == 4 and program.stored_bytes(palette.parts[0]) == 3
    assert count_macs(main) == Macs(products=2 * 2 * 4 + 2 * 2 * 2)


@pytest.mark.parametrize(
    ("written", "edited", "says"),
    [
        (
            "[[0.5, 2.0], [1.0, 4.0]]> : tensor<2x2xf32>",
            "[[0.5, 2.0, 1.0]]> : tensor<1x3xf32>",
            r"3\] values for",
        ),
        (
            "[[[[1.0], [2.0], [3.0]]]]> : tensor<1x1x3x1",
            "[[[[1.0, 2.0, 3.0]]]]> : tensor<1x1x1x3",
            "expected one table",
        ),
        ("0x10000000002008", "0x100000000020F8", "index 62 is out of bounds"),
        ("0x10000000F1E2D3C4", "0x10000000F1E2", "written in an unknown way"),
    ],
    ids=["blocks", "tables", "index", "short"],
)
def test_a_damaged_compressed_weight_is_refused(written: str, edited: str, says: str) -> None:
    assert written in COMPRESSED
    (main,) = (program := ProgramText(COMPRESSED.replace(written, edited))).functions
    with pytest.raises(BundleError, match=says):
        for name in ("4", "8"):
            constant = main.constant(name)
            assert constant is not None
            program.array(constant)


def test_elements_smaller_than_a_byte() -> None:
    assert split_bytes(b"\xf1\x78", "si4", 4).tolist() == [1, -1, -8, 7]
    assert split_bytes(b"\xf1\x78", "ui4", 3).tolist() == [1, 15, 8]
    assert split_bytes(bytes([0b11000001, 0b10000000, 0b00001000]), "ui6", 4).tolist() == [1, 3, 8, 2]
