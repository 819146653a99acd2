"""Each weight of the static module is one initializer, read as often as its block is applied.

Weights are identified by content: names in the file prove nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.graphs.macs import PRODUCTS
from morvit_deploy.exporters.onnx.proof_precision import Integers, Promise, content_key
from morvit_deploy.graph.style.blocks import StaticLinear
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.graph.weights import weight_name

Array = NDArray[Any]  # a weight of any type: float, half or integer
BFLOAT16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
HELD_ELEMENTS = 4096  # an initializer of this size or more must be one of the model's own weights


class Keys:
    """Content keys of the tensors of static modules, which the buckets share: each is hashed once.

    The modules must live as long as this.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[object, ...], str] = {}

    def of(self, tensor: torch.Tensor) -> str:
        """The content key of a tensor's values."""
        which = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if which not in self.known:
            self.known[which] = content_key(as_numpy(tensor))
        return self.known[which]


def promised_uses(graph: StaticMoRViT, keys: Keys) -> tuple[dict[str, Promise], Set[str]]:
    """Run the static module; content key of each weight to how often it is multiplied by, and names of all values."""
    uses: Counter[str] = Counter()
    held: dict[str, tuple[str, Array]] = {}
    hooks = []
    for name, module in graph.named_modules():
        if isinstance(module, StaticLinear):
            key = keys.of(module.weight)
            held[key] = weight_name(f"{name}.weight"), as_numpy(module.weight)
            hooks.append(module.register_forward_hook(lambda *_, key=key: uses.update([key])))
    named = graph(example_image(graph, 1 if graph.options.single else 2))
    for hook in hooks:
        hook.remove()
    # a router whose logits are not read does not run, and is not in the file
    promised = {
        key: Promise(name, uses[key], values.nbytes, values)
        for key, (name, values) in held.items()
        if uses[key]
    }
    return promised, named.keys()


def stored_keys(model: onnx.ModelProto, integers: Integers) -> dict[str, str]:
    """Each initializer of a plain graph to its content key; to that of the weight that an integer one stands for."""
    return {
        init.name: integers.keys.get(init.name) or content_key(numpy_helper.to_array(init))
        for init in model.graph.initializer
    }


def bytes_beside_weights(graphs: Mapping[str, StaticMoRViT]) -> int:
    """Bytes of the unique tensors that are no weight of a linear layer: positions, biases, norms."""
    found = {
        content_key(as_numpy(tensor)): tensor.nbytes
        for graph in graphs.values()
        for name, module in graph.named_modules()
        for part, tensor in module.state_dict(keep_vars=True).items()
        if "." not in part and not (isinstance(module, StaticLinear) and part == "weight")
    }
    return sum(found.values())


def weight_uses(model: onnx.ModelProto, integers: Integers) -> dict[str, int]:
    """Initializer to the number of products that read it as a factor, widened first where it is int8."""
    weights = [init.name for init in model.graph.initializer if len(init.dims) == 2]
    factors = Counter(
        integers.factor.get(name, name)
        for node in model.graph.node
        if node.op_type in PRODUCTS
        for name in node.input[:2]
    )
    return {name: factors[name] for name in weights if factors[name]}


def sharing_violations(
    model: onnx.ModelProto,
    uses: Mapping[str, int],
    promised: Mapping[str, Promise],
    owned: Set[str],
    integers: Integers,
    stored: Mapping[str, str],
    *,
    copied: bool = False,
) -> list[str]:
    """One bucket's plain graph: each weight is one initializer, applied as often as promised; there are no others.

    `owned` are the content keys of the module's tensors, position constants too; `stored` is from `stored_keys`. With
    `copied` a weight may have one copy in blocks beside it.
    """
    found: dict[str, list[str]] = {key: [] for key in promised}
    violations = []
    for init in model.graph.initializer:
        key = stored[init.name]
        if key in promised:
            found[key].append(init.name)
        elif init.name not in integers.parameters and key not in owned and _holds_values(init):
            violations.append(
                f"initializer {init.name!r} {list(init.dims)} is no weight of the model; "
                f"read by {_readers(model, init.name)}"
            )
    for key, promise in promised.items():
        kinds = len({name in integers.blocks for name in found[key]}) if copied else 1
        violations += _use_violations(model, promise, found[key], uses, kinds)
    return violations


def _use_violations(
    model: onnx.ModelProto, promise: Promise, names: list[str], uses: Mapping[str, int], kinds: int
) -> list[str]:
    """One weight, which the graph holds under `names`, one of each of `kinds` kinds."""
    if len(names) != max(1, kinds):
        return [f"weight {promise.name!r} is stored {len(names)} times, expected once: {names}"]
    if (actual := sum(uses.get(name, 0) for name in names)) != promise.uses:
        readers = [reader for name in names for reader in _readers(model, name)]
        return [f"weight {names[0]!r} is applied {actual} times, expected {promise.uses}; by {readers}"]
    return []


def _holds_values(init: onnx.TensorProto) -> bool:
    """Whether it is as large as a weight. Token numbers, which are int64, grow with the image."""
    return init.data_type != onnx.TensorProto.INT64 and math.prod(init.dims) >= HELD_ELEMENTS


def _readers(model: onnx.ModelProto, name: str) -> list[str]:
    return [node.name for node in model.graph.node if name in node.input]


def integer_keys(model: onnx.ModelProto, read: Integers, promised: Mapping[str, Promise]) -> dict[str, str]:
    """Content key of each integer weight of a plain graph, as it is stored, to the weight's name."""
    return {
        content_key(
            read.blocks[init.name].packed if init.name in read.blocks else numpy_helper.to_array(init)
        ): promised[read.keys[init.name]].name
        for init in model.graph.initializer
        if init.name in read.keys
    }


def as_numpy(tensor: torch.Tensor) -> Array:
    """The tensor's values, bf16 in the NumPy type that onnx uses for it."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()
