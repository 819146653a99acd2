"""fp16 products that are summed in float32."""

from __future__ import annotations

from morvit_deploy.exporters.coreai.printed.wide import with_wide_products

BOTH = "(tensor<2x4xf16>, tensor<4x2xf16>) -> tensor<2x2xf16>"
WIDE = "(tensor<2x4xf32>, tensor<4x2xf32>) -> tensor<2x2xf32>"


def test_a_product_is_cast_before_and_after() -> None:
    product = f"    %7 = coreai.decomposable.broadcasting_batch_matmul %6#1, %5 : {BOTH}"
    assert with_wide_products(product).splitlines() == [
        "    %wide7_0 = coreai.cast %6#1 : tensor<2x4xf16> to tensor<2x4xf32>",
        "    %wide7_1 = coreai.cast %5 : tensor<4x2xf16> to tensor<4x2xf32>",
        f"    %wide7 = coreai.decomposable.broadcasting_batch_matmul %wide7_0, %wide7_1 : {WIDE}",
        "    %7 = coreai.cast %wide7 : tensor<2x2xf32> to tensor<2x2xf16>",
    ]


def test_a_convolution_keeps_its_numbers() -> None:
    took = "(tensor<1x3x8x8xf16>, tensor<4x3x2x2xf16>, tensor<2xui32>, tensor<2xui32>, tensor<ui32>)"
    text = f"    %9 = coreai.conv2d %8, %1, %2, %3, %4 : {took} -> tensor<1x4x4x4xf16>"
    *_, convolution, _ = with_wide_products(text).splitlines()
    assert convolution.endswith(
        f"%wide9_0, %wide9_1, %2, %3, %4 : {took.replace('f16', 'f32')} -> tensor<1x4x4x4xf32>"
    )


def test_everything_else_stays() -> None:
    text = f"""    %1 = coreai.decomposable.broadcasting_batch_matmul %a, %b : {WIDE}
    %2 = coreai.softmax %1, %c : (tensor<2x2xf16>, tensor<si32>) -> tensor<2x2xf16>
    %3 = coreai.decomposable.broadcasting_mul %2, %2 : (tensor<2x2xf16>, tensor<2x2xf16>) -> tensor<2x2xf16>"""
    assert with_wide_products(text) == text
