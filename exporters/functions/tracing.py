"""The modules that become functions, the examples that they are traced with, and the ports of what is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from morvit_deploy.agent.core.running import RESULTS
from morvit_deploy.bundle.manifest import Port
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.functions.names import MAIN, STEM
from morvit_deploy.exporters.request import Request
from morvit_deploy.graph.pieces import Named, StemPart, TrunkPart, Whole, name_carried
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.plan import Plan

IMAGE = "image"
ANSWERS = ("logits", "features", "tokens")  # what a bundle returns, in float32
COUNTED = ("bucket", "depth", "overflow")  # whole numbers, whatever they are computed in


def functions(graphs: dict[str, StaticMoRViT], plan: Plan) -> Iterator[tuple[str, Named, list[Tensor]]]:
    """Each function of a file: name, module, and inputs to trace it with."""
    first = next(iter(graphs.values()))
    image = example_image(first, 1)
    if not plan.adaptive:
        yield MAIN, Whole(first), [image]
        return
    carried, examples = name_carried(first, image)
    yield STEM, StemPart(first, plan, carried), [image]
    for bucket, graph in graphs.items():
        yield bucket, TrunkPart(graph, carried, inside=True), examples


class Outputs(nn.Module):
    """Named values as a tuple, whole numbers as int32: these functions return neither booleans nor bytes."""

    def __init__(self, module: Named, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, tuple(names)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        out = self.named(*inputs)
        return tuple(
            out[name].to(torch.int32) if is_whole(name, out[name]) else out[name] for name in self.names
        )

    def named(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The values by name, before they become a tuple."""
        out: dict[str, Tensor] = self.module(*inputs)
        return out


def is_whole(name: str, value: Tensor) -> bool:
    """Is it returned as int32?"""
    return name in COUNTED or not value.is_floating_point()


@dataclass
class Ports:
    """The ports of a file's functions, collected function by function."""

    request: Request
    inputs: dict[str, Port] = field(default_factory=dict)
    outputs: dict[str, Port] = field(default_factory=dict)

    def add(self, part: Named, example: Sequence[Tensor]) -> None:
        """Add the inputs and outputs of one function."""
        self.inputs |= {
            name: self._port(name, value) for name, value in zip(part.inputs, example, strict=True)
        }
        out = part(*example)
        self.outputs |= {name: self._port(name, out[name]) for name in part.results}

    @property
    def results(self) -> tuple[Port, ...]:
        """What a bundle of any target returns."""
        return tuple(self.outputs[name] for name in RESULTS if name in self.outputs)

    @property
    def carried(self) -> tuple[Port, ...]:
        """What the stem hands to a trunk."""
        return tuple(port for name, port in self.outputs.items() if name not in RESULTS)

    def _port(self, name: str, value: Tensor) -> Port:
        """A function's input or output as an app sees it; an image is pixels (1, height, width, channels)."""
        if name == IMAGE and self.request.input == "uint8":
            channels, height, width = value.shape[-3:]
            return Port(name=name, dtype="uint8", shape=(1, height, width, channels))
        half = self.request.precision == "fp16" and name not in (IMAGE, *ANSWERS)
        dtype = "int32" if is_whole(name, value) else "float16" if half else "float32"
        return Port(name=name, dtype=dtype, shape=tuple(value.shape))


def probe_names(function: str, names: Sequence[str]) -> list[str]:
    """Values inside a function as the manifest names them."""
    return [name if function in (MAIN, STEM) else f"{function}/{name}" for name in names]
