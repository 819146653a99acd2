"""What this machine can do in ONNX Runtime: products a second, and bytes of weights a second. No torch.

Products: one of 512 rows with a weight of 768 × 3072, in the precision of the bundle. Bytes: products of one row with
weights that do not fit into the caches, and a sum over a tensor of the same size; the faster of both counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from morvit_deploy.measuring.profiling.bounds import Machine
from morvit_deploy.timing.loop import CallLane

if TYPE_CHECKING:
    import onnx  # named only

ROWS, INPUTS, OUTPUTS = 512, 768, 3072  # of the large product
LEAST_MIB, MOST_MIB, CACHES = (
    64,
    256,
    4,
)  # weights to read: this many times the last cache, within the two limits
_PARTS = 4  # products that the weights are spread over
_CACHES = "/sys/devices/system/cpu/cpu0/cache"
BY_PRODUCTS, BY_SUM = "products of one row", "a sum"

Options = Callable[[], Any]  # new SessionOptions with the threads of the bundle


class Rates:
    """Lanes that find the machine's rates; `machine` reads them when they have run."""

    def __init__(self, options: Options, *, integers: bool) -> None:
        self.integers, self.read_mib = integers, weights_mib(Path(_CACHES))
        x = np.random.default_rng(0).random((ROWS, INPUTS), dtype=np.float32)
        width = int(self.read_mib * 2**20 / 4 / _PARTS / INPUTS)
        product = _open(_large_product(integers), options)
        row, reading = x[:1], _open(_small_products(width), options)
        tensor, adding = np.ones((INPUTS * _PARTS, width), np.float32), _open(_sum(width), options)
        self.product = CallLane(name="a large product", call=lambda: product.run(None, {"x": x}))
        self.readers = (
            CallLane(name=BY_PRODUCTS, call=lambda: reading.run(None, {"x": row})),
            CallLane(name=BY_SUM, call=lambda: adding.run(None, {"x": tensor})),
        )
        self._bytes = tensor.nbytes

    @property
    def lanes(self) -> tuple[CallLane, ...]:
        return (self.product, *self.readers)

    def machine(self) -> Machine:
        """The rates, by the medians of all runs."""
        fastest = min(self.readers, key=_typical_ms)
        return Machine(
            ROWS * INPUTS * OUTPUTS / _typical_ms(self.product) / 1e6,
            "int8" if self.integers else "fp32",
            self._bytes / _typical_ms(fastest) / 1e6,
            fastest.name,
            self.read_mib,
        )


def weights_mib(caches: Path) -> float:
    """MiB to read so that no cache holds them, by the largest size in a folder of Linux's; the most where unknown."""
    sizes = [file.read_text(encoding="ascii").strip() for file in caches.glob("index*/size")]
    known = [int(size[:-1]) / {"K": 1024, "M": 1}[size[-1]] for size in sizes if size[-1:] in ("K", "M")]
    return min(MOST_MIB, max(LEAST_MIB, CACHES * max(known))) if known else MOST_MIB


def _typical_ms(lane: CallLane) -> float:
    return median(ms for block in lane.blocks for ms in block.ms)


def _open(model: onnx.ModelProto, options: Options) -> Any:
    return ort.InferenceSession(model.SerializeToString(), options(), providers=["CPUExecutionProvider"])


def _large_product(integers: bool) -> onnx.ModelProto:
    """x (ROWS, INPUTS) times a weight; with `integers` as an int8 bundle has it: Q/DQ around a product."""
    from onnx.helper import make_node

    weight = np.random.default_rng(1).random((INPUTS, OUTPUTS), dtype=np.float32) - 0.5
    if not integers:
        return _model([make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    held = {"x_scale": np.float32(1 / 255), "x_zero": np.uint8(0), "w": (weight * 127).astype(np.int8)}
    held |= {"w_scale": np.full(OUTPUTS, 0.01, np.float32), "w_zero": np.zeros(OUTPUTS, np.int8)}
    nodes = [
        make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_narrow"]),
        make_node("DequantizeLinear", ["x_narrow", "x_scale", "x_zero"], ["x_wide"]),
        make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_wide"], axis=1),
        make_node("Gemm", ["x_wide", "w_wide"], ["y"]),
    ]
    return _model(nodes, held)


def _small_products(width: int) -> onnx.ModelProto:
    """x (1, INPUTS) times several weights (INPUTS, width) and the sum of it all, so that there is little to write."""
    from onnx.helper import make_node

    random, parts = np.random.default_rng(2), range(_PARTS)
    weights = {f"w{part}": random.random((INPUTS, width), dtype=np.float32) for part in parts}
    nodes = [make_node("MatMul", ["x", f"w{part}"], [f"y{part}"]) for part in parts]
    return _model([*nodes, make_node("Sum", [f"y{part}" for part in parts], ["y"])], weights)


def _sum(width: int) -> onnx.ModelProto:
    """The sum of each row of x (_PARTS × INPUTS, width)."""
    from onnx.helper import make_node

    return _model([make_node("ReduceSum", ["x", "axes"], ["y"])], {"axes": np.array([1], np.int64)})


def _model(nodes: Sequence[onnx.NodeProto], held: dict[str, Any]) -> onnx.ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "columns"]) for name in "xy"]
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "rate", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
