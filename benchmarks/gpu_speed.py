"""Images per second of MoR-ViT-B/16, unrolled and masked, and of ViT-B/16, in PyTorch on a GPU.

The modules of a group take turns, block by block. With a CUDA graph, a run is one launch. In eager mode
PyTorch launches every kernel, and small batches wait for the host; the device mode that the static module needs adds
host time to every operator, of all modules alike. CUDA events time each run, with the images on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from common import ladder
from torch import Tensor, nn

from morvit_deploy.graph.baselines import build_graph
from morvit_deploy.graph.maths.layouts import BSD
from morvit_deploy.graph.style.blocks import FusedBlock
from morvit_deploy.graph.style.selection import Gathers
from morvit_deploy.graph.style.stems import RowStem
from morvit_deploy.graph.style.styles import STYLES, Options, Style
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.model.checkpoint import init_model
from morvit_deploy.model.choices import Variant
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.presets import preset
from morvit_deploy.timing.loop import Amount, Lane, Measurer, Stages, measure, ms_of, timed_block
from morvit_deploy.timing.result import Measured, ratio_of
from morvit_deploy.timing.samples import Block

UNROLLED, MASKED, VIT, TIMM = "morvit_b16, unrolled", "morvit_b16, masked", "vit_b16", "timm ViT-B/16"
SUBJECTS = (UNROLLED, MASKED, VIT, TIMM)
BASELINES = (MASKED, VIT, TIMM)
TYPES = {"fp16": torch.float16, "TF32": torch.float32, "bf16": torch.bfloat16, "fp32": torch.float32}
BATCHES = (1, 64, 8, 256)  # in this order: a cut leaves the most telling ones
FUSED = Style("PyTorch: attention as one kernel", BSD, Gathers, RowStem, FusedBlock, single=False)
ATTENTIONS = {"fused": FUSED, "products": STYLES["rows"]}
SCHEDULES = (
    (20, 10, 5, 3, 2, 1, 1, 1, 1, 1),
    (80, 33, 14, 6, 2, 1, 1, 1, 1, 1),
    (140, 90, 60, 40, 20, 10, 5, 3, 2, 1),
)
AMOUNT = Amount(blocks=6, warmup=2, starts=1, least=4, most=50, block_ms=120, look=2)
QUICK = Amount(blocks=1, warmup=0, starts=1, least=1, most=1, look=1)
GROUP_S = 20.0  # no group is begun with less time left
CHECKED = 8  # images on which unrolled and masked are compared in fp32


@dataclass(frozen=True)
class Group:
    """Modules that are measured together."""

    precision: str
    batch: int
    attention: str = "fused"
    subjects: tuple[str, ...] = SUBJECTS
    eager: bool = True

    @property
    def name(self) -> str:
        """Key in the results."""
        return f"{self.precision}, batch {self.batch}, attention {self.attention}: {', '.join(self.subjects)}"


@dataclass(kw_only=True)
class TorchLane(Lane):
    """A module at one batch size, launched by a CUDA graph or eagerly."""

    subject: str
    module: nn.Module
    images: Tensor
    cuda_graph: bool
    launch: Callable[[], object] = field(default=lambda: None)

    def timing(self) -> dict[str, Any]:
        """Figures and every raw sample."""
        measured = self.measured()
        medians = measured.block_medians_ms
        return {
            "subject": self.subject,
            "cuda_graph": self.cuda_graph,
            "median_ms": measured.latency_ms["p50"],
            "block_medians_ms": medians,
            "images_per_s": 1e3 * self.batch / measured.latency_ms["p50"],
            "images_per_s_of_blocks": [1e3 * self.batch / ms for ms in medians],
            "blocks_ms": [list(block.ms) for block in self.blocks],
        }

    def measured(self) -> Measured:
        """The blocks under the lane's name."""
        return Measured(self.name, self.batch, tuple(self.blocks))


class TorchGpu(Measurer[TorchLane]):
    """Times modules by CUDA events, or by the clock on a CPU."""

    def __init__(self, device: str) -> None:
        self.device = device

    def conditions(self) -> dict[str, Any]:
        return {}

    def prepare(self, lane: TorchLane) -> None:
        lane.launch = captured(lane.module, lane.images) if lane.cuda_graph else eager(lane, self.device)

    def returns(self, lane: TorchLane) -> None:
        return None  # `same_model` has compared them

    def run(self, lane: TorchLane, runs: int, warmup: int) -> Block:
        return timed_block(lambda: self._once_ms(lane.launch), runs, warmup)

    def _once_ms(self, launch: Callable[[], object]) -> float:
        if self.device == "cpu":
            return ms_of(launch)
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        launch()
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after))


def speed(device: str, quick: bool, until: float, save: Callable[[str, dict[str, Any]], None]) -> None:
    """Measure every group; `save` is called with its name and figures after each, or why it was left out."""
    modules = Modules(device)
    save("same model", same_model(modules, 1 if quick else CHECKED))
    for group in groups(quick):
        if time.time() + (0 if quick else GROUP_S) > until:
            save(group.name, {"skipped": "the time was used up"})
            continue
        try:
            save(group.name, measured(group, modules, quick))
        except RuntimeError as error:  # out of memory, a failed capture: the others still run
            save(group.name, {"error": f"{type(error).__name__}: {error}"})
        if device != "cpu":
            torch.cuda.empty_cache()


def groups(quick: bool) -> Iterator[Group]:
    """The comparison first, then the two forms of attention, then the buckets of a ladder."""
    batches = (1,) if quick else BATCHES
    precisions = ("TF32",) if quick else ("fp16", "TF32", "bf16")  # a CPU takes minutes for products in fp16
    for precision, batch in product(precisions, batches):
        yield Group(precision, batch)
    buckets = (*(f"bucket b{number}" for number in range(len(SCHEDULES))), "bucket full")
    for batch in batches[:2]:
        yield Group(precisions[0], batch, "products", subjects=(UNROLLED, MASKED, VIT), eager=False)
        yield Group(precisions[0], batch, subjects=buckets, eager=False)
    for batch in batches[:2]:
        yield Group("fp32", batch, eager=False)


def measured(group: Group, modules: Modules, quick: bool) -> dict[str, Any]:
    """Every module of a group, as a CUDA graph and eagerly, with its speed against the baselines."""
    torch.set_float32_matmul_precision("high" if group.precision == "TF32" else "highest")
    device, shape = modules.device, modules.image_shape
    images = torch.rand(group.batch, 3, *shape, device=device).to(TYPES[group.precision])
    ways = ([True] if device != "cpu" else []) + ([False] if group.eager or device == "cpu" else [])
    lanes, absent = [], {}
    for subject in group.subjects:
        try:
            module = modules.get(subject, group.attention, group.precision)
        except (ImportError, RuntimeError) as error:  # timm, beside a torchvision of another PyTorch
            absent[subject] = f"{type(error).__name__}: {error}"
            continue
        lanes += [
            TorchLane(
                name=f"{subject} ({'CUDA graph' if way else 'eager'})",
                batch=group.batch, subject=subject, module=module, images=images, cuda_graph=way,
            )
            for way in ways
        ]  # fmt: skip
    with torch.no_grad(), torch.device(device):
        conditions = measure(TorchGpu(device), lanes, QUICK if quick else AMOUNT, Stages())
    return {
        "precision": group.precision,
        "batch": group.batch,
        "attention": group.attention,
        "runs_per_block": conditions["runs_per_block"],
        "absent": absent,
        "timings": [lane.timing() for lane in lanes],
        "ratios": [one for way in ways for one in ratios([lane for lane in lanes if lane.cuda_graph is way])],
    }


def ratios(lanes: Sequence[TorchLane]) -> list[dict[str, Any]]:
    """Images/s of the unrolled MoR-ViT over that of each baseline, block by block."""
    ours = [lane for lane in lanes if lane.subject == UNROLLED]
    return [
        ratio_of(one.measured(), other.measured(), means=False).as_dict()
        | {"baseline": other.subject, "cuda_graph": one.cuda_graph}
        for one in ours
        for other in lanes
        if other.subject in BASELINES
    ]


class Modules:
    """Modules from normalised images to logits, on the device; built once for each attention and precision."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.models = {name: init_model(preset(name), seed=0) for name in ("morvit_b16", "vit_b16")}
        self.image_shape = self.models["morvit_b16"].config.image_shape
        self._built: dict[tuple[str, str, str], nn.Module] = {}

    def get(self, subject: str, attention: str, precision: str) -> nn.Module:
        """A subject in a precision; what importing timm raises."""
        key = subject, attention, precision
        if key not in self._built:
            module = self._timm() if subject == TIMM else Logits(self._static(subject, ATTENTIONS[attention]))
            self._built[key] = module.to(self.device, TYPES[precision]).eval()
        return self._built[key]

    def _static(self, subject: str, style: Style) -> nn.Module:
        options = Options(input="float", style=style)
        model = self.models["vit_b16" if subject == VIT else "morvit_b16"]
        if subject.startswith("bucket "):
            plan = ladder(model.config, SCHEDULES)
            return unroll(model, plan.bucket(subject.split()[1]), options, plan)
        form: Variant = (
            "unrolled" if subject == UNROLLED else "masked"
        )  # a plain ViT: nothing folded, all tokens
        return build_graph(form, model, own_plan(model.config).buckets[0], options)

    def _timm(self) -> nn.Module:
        import timm

        module: nn.Module = timm.create_model("vit_base_patch16_224", pretrained=False)
        return module


class Logits(nn.Module):
    """The logits alone."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.graph(images)["logits"]
        return logits


def eager(lane: TorchLane, device: str) -> Callable[[], object]:
    """A call that launches every kernel, after two warm ones."""
    for _ in range(1 if device == "cpu" else 2):
        lane.module(lane.images)
    return lambda: lane.module(lane.images)


def captured(module: nn.Module, images: Tensor) -> Callable[[], object]:
    """A launch of the whole module, recorded after warm runs on another stream, as PyTorch asks for."""
    with warming():
        for _ in range(3):
            module(images)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        module(images)
    return graph.replay


@contextmanager
def warming() -> Iterator[None]:
    """A side stream that waits for the current one, which then waits for it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def same_model(modules: Modules, count: int) -> dict[str, Any]:
    """Largest logit difference of the unrolled and the masked form in fp32: they are one model."""
    torch.set_float32_matmul_precision("highest")
    images = torch.rand(count, 3, *modules.image_shape, device=modules.device)
    with torch.no_grad(), torch.device(modules.device):
        one, other = (modules.get(subject, "fused", "fp32")(images) for subject in (UNROLLED, MASKED))
    return {
        "images": count,
        "max_logit_difference": float((one - other).abs().max()),
        "max_logit": float(one.abs().max()),
    }
