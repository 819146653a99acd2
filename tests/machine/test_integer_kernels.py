"""Which processors sum int8 products in 16 bits: by their flags, and by what ONNX Runtime does on this one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from morvit_deploy.agent.host import machine
from morvit_deploy.bundle.session import kernel_warnings
from morvit_deploy.exporters.onnx.low.observe import open_session
from morvit_deploy.exporters.onnx.low.quantize import DQ, Q
from morvit_deploy.machine import integer_kernels
from morvit_deploy.machine.integer_kernels import IntegerKernels, kernels_here, kernels_of
from morvit_deploy.machine.integer_kernels import integer_kernels as judged
from morvit_deploy.measuring.cpu.lanes import saturating
from morvit_deploy.model.precision import Lowering

# architecture, flags of /proc/cpuinfo, the instruction set, do its sums saturate
PROCESSORS = {
    "EPYC Milan": ("x86_64", "fpu sse2 sse4_1 avx avx2 vaes", "avx2", True),
    "Skylake-SP": ("x86_64", "sse4_1 avx2 avx512f avx512bw avx512vl", "avx512f", True),
    "Ice Lake": ("x86_64", "avx2 avx512f avx512_vnni", "avx512_vnni", False),
    "Alder Lake": ("x86_64", "avx2 avx_vnni", "avx_vnni", False),
    "Sapphire Rapids": ("x86_64", "avx2 avx512f avx512_vnni avx_vnni amx_int8", "amx_int8", False),
    "before AVX2": ("x86_64", "fpu sse2 sse4_1", "x86_64", True),
    "Windows": ("AMD64", "", "amd64", True),
    "Raspberry Pi 4": ("aarch64", "fp asimd crc32", "asimd", False),
    "Orin": ("aarch64", "fp asimd asimddp", "asimddp", False),
    "Graviton 3": ("aarch64", "fp asimd asimddp i8mm", "i8mm", False),
    "Mac": ("arm64", "", "arm64", False),
    "no name": ("", "", "unknown", False),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_is_known_by_its_flags(name: str) -> None:
    architecture, flags, best, saturating = PROCESSORS[name]
    found = judged(architecture, flags.split())
    assert found == IntegerKernels(best, saturating)
    assert found.weight_bits == (7 if saturating else 8)


def test_this_machine_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "instruction_sets", lambda: ("avx2", "avx_vnni"))
    assert kernels_here().instruction_set == "avx_vnni"


def test_a_board_is_known_by_what_its_agent_reports() -> None:
    board = {"system": "Linux 5.15.148-tegra aarch64", "instruction_sets": ["asimd", "asimddp"]}
    assert kernels_of(board) == IntegerKernels("asimddp", False)
    assert kernels_of(machine.machine()) == kernels_here()


def product(weight: int) -> onnx.ModelProto:
    """Q/DQ of 64 inputs at their largest, by 64 × 64 equal weights; every sum is 64 × 255 × `weight`."""
    nodes = [
        helper.make_node(Q, ["image", "one", "zero"], ["narrow"]),
        helper.make_node(DQ, ["narrow", "one", "zero"], ["wide"]),
        helper.make_node(DQ, ["weight", "ones", "zeros"], ["weight_wide"], axis=1),
        helper.make_node("Gemm", ["wide", "weight_wide"], ["logits"]),
    ]
    held = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "ones": np.ones(64, np.float32),
        "zeros": np.zeros(64, np.int8),
        "weight": np.full((64, 64), weight, np.int8),
    }
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [16, 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [16, 64])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def sums(weight: int, *, integers: bool = True) -> set[float]:
    session = open_session(product(weight), integers=integers)
    (found,) = session.run(["logits"], {"image": np.full((16, 64), 255, np.float32)})
    return set(found.ravel().tolist())


def test_onnx_runtime_saturates_where_the_flags_say_so() -> None:
    exact = {64.0 * 255 * 127}
    if kernels_here().instruction_set in (*integer_kernels.IN_32_BITS, *integer_kernels.OTHERS):
        assert (sums(127) == exact) is not kernels_here().saturating
    assert sums(64) == {64.0 * 255 * 64} and sums(-64) == {64.0 * 255 * -64}, "7 bits are right anywhere"


def test_float_products_of_rounded_values_never_saturate() -> None:
    assert sums(127, integers=False) == {64.0 * 255 * 127}


SATURATING, EXACT = IntegerKernels("avx2", True), IntegerKernels("avx512_vnni", False)


@pytest.mark.parametrize(
    ("lowering", "here", "warned"),
    [
        (Lowering(flavor="cpu", weight_bits=8), SATURATING, True),
        (Lowering(flavor="cpu"), SATURATING, True),  # a manifest that is older than the field
        (Lowering(flavor="cpu", weight_bits=7), SATURATING, False),
        (Lowering(flavor="cpu", weight_bits=8), EXACT, False),
        (Lowering(flavor="trt", weight_bits=8), SATURATING, False),
        (Lowering(), SATURATING, False),  # fp16
        (None, SATURATING, False),
    ],
)
def test_eight_bits_on_a_saturating_processor_are_warned_of(
    lowering: Lowering | None, here: IntegerKernels, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integer_kernels, "kernels_here", lambda: here)
    found = kernel_warnings(lowering)
    assert bool(found) is warned
    assert not warned or "int8 products saturate on this processor (avx2, no VNNI)" in found[0]
    assert kernel_warnings(lowering, here) == found


def test_bench_warns_of_the_processor_that_ran_the_bundle() -> None:
    lanes: Any = [
        SimpleNamespace(name=name, subject=SimpleNamespace(manifest=SimpleNamespace(lowering=lowering)))
        for name, lowering in (("fp32", None), ("int8", Lowering(flavor="cpu", weight_bits=8)))
    ]
    (warning,) = saturating(lanes, SATURATING, " on pi@board")
    assert warning.startswith("int8 on pi@board: int8 products saturate on this processor (avx2, no VNNI)")
    assert saturating(lanes, EXACT) == []
