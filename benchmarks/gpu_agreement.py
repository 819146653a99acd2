"""Which precisions keep the routing: the static module on the GPU, decision by decision, against float64.

An image and a patch token have one decision a step: whether the token runs it. The same static module runs the same
images in each precision. `depth`, the number of steps a token ran, holds all of its decisions: a token that has left
does not return.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.pixels import Pixels, synthetic_images
from morvit_deploy.graph.lowering import HALF_TYPES, lower
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import StaticMoRViT, unroll
from morvit_deploy.model.checkpoint import init_model, load_checkpoint
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.presets import preset
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.verifying.comparison import exactly_normalised

EXAMPLES = Path(__file__).parents[1] / "examples"
PRECISIONS = ("float64", "fp32", "TF32", "fp16", "bf16", "fp16 throughout", "bf16 throughout")
THROUGHOUT = " throughout"  # routers, norms, softmax and residual stream as well; a bundle keeps them in fp32
CHUNK = 32  # images
REFERENCE_IMAGES = 4  # also run by the reference on the CPU


@dataclass(frozen=True)
class Subject:
    """A model with the images that it is compared on."""

    name: str
    model: MoRViT
    pixels: Pixels  # uint8 (n, height, width, 3)


@dataclass(frozen=True)
class Returned:
    """What a static module returns for all images, on the CPU."""

    logits: Tensor  # float64 (n, classes)
    depth: Tensor  # (n, N)

    def runs(self, step: int) -> Tensor:
        """Which tokens run a step, counted from 0: bool (n, N)."""
        return self.depth > step


def agreement(device: str, quick: bool, save: Callable[[str, dict[str, Any]], None]) -> None:
    """Compare each precision of each model; `save` is called with the model's name after every precision."""
    for subject in subjects(quick):
        exact = run(subject, "float64", device)
        found: dict[str, Any] = {"images": len(subject.pixels), "reference": reference_gap(subject, exact)}
        for precision in PRECISIONS[1:]:
            other = run(subject, precision, device)
            found[precision] = compared(exact, other, subject.model.config.num_steps)
            save(subject.name, found)


def subjects(quick: bool) -> list[Subject]:
    """Both trained digits models, and `morvit_b16` with random weights."""
    chosen = []
    for name in ("digits-expert", "digits-token"):
        model = load_checkpoint(EXAMPLES / name)
        pixels = open_images(EXAMPLES / "digits-test", model.config).all()
        chosen.append(Subject(name, model, pixels[:8] if quick else pixels))
    config = preset("morvit_b16")
    pixels = synthetic_images(1 if quick else 64, config.image_size, seed=1)
    return [*chosen, Subject("morvit_b16 (random weights)", init_model(config, seed=0), pixels)]


def run(subject: Subject, precision: str, device: str) -> Returned:
    """The results of the static module in a precision."""
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
    graph = static_graph(subject.model, precision).to(device)
    logits, depth = [], []
    with torch.no_grad(), torch.device(device):
        for start in range(0, len(subject.pixels), CHUNK):
            out = graph(torch.from_numpy(subject.pixels[start : start + CHUNK]).to(device))
            logits.append(out["logits"].double().cpu())
            depth.append(out["depth"].cpu())
    return Returned(torch.cat(logits), torch.cat(depth))


def static_graph(model: MoRViT, precision: str) -> StaticMoRViT:
    """The checkpoint's own plan as a static module in a precision, as a bundle holds it or in one type throughout."""
    plan = own_plan(model.config)
    options = Options(with_depth=True, style=STYLES["rows"])
    model = copy.deepcopy(model).double() if precision == "float64" else model
    graph = unroll(model, plan.buckets[0], options, plan)
    kind = precision.removesuffix(THROUGHOUT)
    if kind in HALF_TYPES:
        lower({"only": graph}, kind, None)  # raw pixels are scaled for fp16
    return graph.to(HALF_TYPES[kind]) if precision.endswith(THROUGHOUT) else graph


def compared(exact: Returned, other: Returned, steps: int) -> dict[str, Any]:
    """Shares of equal decisions and of equal kept tokens by step, of images and of classes, and the logit gap."""
    runs = [(exact.runs(step), other.runs(step)) for step in range(steps)]
    alike = (exact.depth == other.depth).all(dim=-1)
    return {
        "decisions_equal": [share(one == two) for one, two in runs],
        "kept_equal": [share((one & two)[one]) for one, two in runs],
        "images_equal": share(alike),
        "classes_equal": share(exact.logits.argmax(dim=-1) == other.logits.argmax(dim=-1)),
        "max_logit_difference": float((exact.logits - other.logits).abs().max()),
        "max_logit": float(exact.logits.abs().max()),
    }


def reference_gap(subject: Subject, exact: Returned) -> dict[str, Any]:
    """The same numbers for the reference implementation in float64 on the CPU, on the first images."""
    pixels = subject.pixels[:REFERENCE_IMAGES]
    with torch.no_grad():
        outcome = copy.deepcopy(subject.model).double()(
            exactly_normalised(pixels, subject.model.config.preprocess)
        )
    first = Returned(exact.logits[: len(pixels)], exact.depth[: len(pixels)])
    steps = subject.model.config.num_steps
    return compared(Returned(outcome.logits, outcome.depth), first, steps) | {"images": len(pixels)}


def share(holds: Tensor) -> float:
    """The fraction that holds; 1 for none."""
    return float(holds.double().mean()) if holds.numel() else 1.0
