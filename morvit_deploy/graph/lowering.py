"""Conversion of a static module to lower precision: fp16 or bf16 weights, smoothed channels, centred pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.graph.maths.layouts import BSD
from morvit_deploy.graph.style.blocks import HeadChannels, Projections, StaticBlock, StaticLinear, StaticNorm
from morvit_deploy.graph.style.stems import RowStem
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.precision import Lowering

PIXEL_SHRINK = 2.0**-8  # scale of raw pixels in fp16: with 1/255 folded in, most weights would be subnormal
# the layers that read a block's first norm; V, which `proj` reads, is in the last of them
READ_FIRST: dict[Projections, tuple[str, ...]] = {
    "joint": ("qkv",),
    "apart": ("q", "kv"),
    "unformed": ("q", "v"),
}
HALF_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
PIXEL_CENTRE = 128.0  # offset of raw pixels in symmetric int8, so that they fill its range exactly


def lower(graphs: Mapping[str, StaticMoRViT], precision: str, lowering: Lowering | None) -> None:
    """Convert the buckets' modules, which share their weights, to a bundle's precision, in place; layout bsd only."""
    graph = next(iter(graphs.values()))
    assert graph.options.style.layout is BSD, "channels-first graphs are lowered by Core ML's converter"
    if lowering is not None and lowering.smoothing:
        smooth(graph, lowering.smoothing)
    if precision in HALF_TYPES:
        to_half(graph, HALF_TYPES[precision])
    if lowering is not None and lowering.flavor == "trt":
        centre_pixels(graph)


def to_half(graph: StaticMoRViT, dtype: torch.dtype = torch.float16) -> None:
    """Convert all weights but the routers' to fp16 or bf16, in place; products and GELU then use that type.

    The residual stream, norms, softmax, routers, gates and logits stay in fp32. Raises CheckpointError for a weight
    outside the range of the type.
    """
    stem = graph.stem
    # bf16 has the range of fp32: no scaling
    if isinstance(stem, RowStem) and stem.folded and dtype == torch.float16:
        stem.shrink = PIXEL_SHRINK
        stem.patch.weight.mul_(1 / PIXEL_SHRINK)
    for name, module in graph.named_modules():
        if isinstance(module, HeadChannels):
            module.to(dtype)
        if isinstance(module, StaticLinear) and not name.startswith("routers."):
            largest = max(float(part.abs().max()) for part in _parts(module))
            if not largest <= torch.finfo(dtype).max:
                raise CheckpointError(
                    f"{name}: got a weight of magnitude {largest:.3g}, expected at most {torch.finfo(dtype).max:g} "
                    f"for {dtype}; export in fp32"
                )
            module.to(dtype)


def centre_pixels(graph: StaticMoRViT) -> None:
    """Shift raw pixels to −128 … 127 before the patch projection, in place; the positions compensate for it."""
    stem = graph.stem
    if isinstance(stem, RowStem) and stem.folded:
        stem.centre = PIXEL_CENTRE
        moved = PIXEL_CENTRE * stem.patch.weight.double().sum(dim=0)
        stem.positions.copy_((stem.positions.double() + moved).to(stem.positions.dtype))


@dataclass(frozen=True)
class Channels:
    """A group of channels that can be scaled: the tensors that write it, and the layers that read it."""

    name: str
    written_by: tuple[Tensor, ...]  # (…, channels) each
    read_by: tuple[tuple[str, StaticLinear], ...]  # weights (channels, out)
    # weights (in, channels) whose products are multiplied with the channels, as rewrite 6 does with keys
    met_by: tuple[StaticLinear, ...] = ()


def smooth(graph: StaticMoRViT, exponents: Mapping[str, Sequence[int]]) -> None:
    """Divide channels by 2^exponents where they are written and multiply where they are read, in place.

    Exact in any precision, because the factors are powers of two. Raises ConfigError for an unknown group of channels
    or a wrong number of exponents.
    """
    places = {place.name: place for place in smoothable(graph)}
    for name, powers in exponents.items():
        if name not in places or len(powers) != places[name].written_by[0].shape[-1]:
            raise ConfigError(
                f"smoothing: got {len(powers)} exponents for {name!r}, expected one for each channel of one of "
                f"{', '.join(places)}"
            )
        factors = torch.exp2(torch.tensor(powers, dtype=places[name].written_by[0].dtype))
        for tensor in places[name].written_by:
            tensor.div_(factors)
        for _, linear in places[name].read_by:
            linear.weight.mul_(factors[:, None])
        for linear in places[name].met_by:
            linear.weight.mul_(factors)


def smoothable(graph: StaticMoRViT) -> Iterator[Channels]:
    """Yield each norm with the layers that read it, and V with proj, since attention does not mix channels.

    Factors cannot pass the GELU between fc1 and fc2, which is not linear.
    """
    for key, module in graph.blocks.items():
        assert isinstance(module, StaticBlock)
        block = key.replace("cycle_", "cycle.")
        first = READ_FIRST[module.projections]
        readers = tuple((f"{block}.{name}", getattr(module, name)) for name in first)
        meeting = (module.k,) if module.unformed else ()
        yield Channels(f"{block}.norm1", _parts(module.norm1), readers, meeting)
        values = [part[..., -module.proj.weight.shape[0] :] for part in _parts(getattr(module, first[-1]))]
        yield Channels(f"{block}.v", tuple(values), ((f"{block}.proj", module.proj),))
        yield Channels(f"{block}.norm2", _parts(module.norm2), ((f"{block}.fc1", module.fc1),))
    if not graph.classifier.head:  # the output is not logits
        return
    head = graph.classifier.head[0]
    assert isinstance(head, StaticLinear)
    yield Channels("classifier.norm", _parts(graph.classifier.norm), (("classifier.head.0", head),))


def _parts(module: StaticNorm | StaticLinear) -> tuple[Tensor, ...]:
    return (module.weight,) if module.bias is None else (module.weight, module.bias)
