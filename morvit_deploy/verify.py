"""Is the bundle the checkpoint? Two gaps, judged apart, and the routers' decisions token by token.

Routing gap: the dynamic reference against the static graph, both in float64 in PyTorch.
Conversion gap: the static graph in float64 against what the target's runtime answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.baselines import build_form
from morvit_deploy.bundle import Manifest
from morvit_deploy.calibration.images import open_images
from morvit_deploy.checkpoint import fingerprint, load_checkpoint
from morvit_deploy.ends import Options
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.registry import find_target, open_bundle
from morvit_deploy.model import MoRViT
from morvit_deploy.pixels import Pixels, normalise, synthetic_images
from morvit_deploy.runtime import Session
from morvit_deploy.walk import Walk

LOGIT_TOLERANCE = (
    1e-4  # × max(1, max |logit|): float32 round-off over 12 layers, and 20 times above what is seen
)
MARGIN = 1e-4  # router logits closer than this may swap by float32 round-off: such images are not judged
EXACT_TOLERANCE = 1e-9  # routing gap: both sides are float64, only the order of sums differs
DEFAULT_LIMIT = 64  # images; the float64 reference walks them one by one
DEFAULT_IMAGES = 4  # synthetic pictures, when the user gives none


@dataclass(frozen=True)
class Gap:
    """How far two answers are apart over the judged images."""

    max_abs: float
    tolerance: float  # the largest difference allowed, already scaled
    top1_agreement: float

    @property
    def passed(self) -> bool:
        """Within tolerance, and every judged image gets the same class."""
        return bool(self.max_abs <= self.tolerance and self.top1_agreement == 1.0)

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {
            "max_abs": self.max_abs,
            "tolerance": self.tolerance,
            "top1_agreement": self.top1_agreement,
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Verification:
    """The outcome of a comparison."""

    structure: dict[str, Any]
    routing_gap: Gap
    conversion_gap: Gap
    router_agreement: list[float] | None  # per step; None where the graph has no probes (baseline forms)
    images: int
    ambiguous: int  # images whose routing margin is below MARGIN, not judged
    synthetic: bool
    first_divergence: str | None = None
    margins: list[float] = field(default_factory=list)
    same_checkpoint: bool = True  # the weights are those the bundle was made from, byte for byte

    @property
    def passed(self) -> bool:
        """Structure proved and both gaps closed, on at least one judged image."""
        structure = bool(self.structure.get("proved", True)) or self.structure.get("form") != "unrolled"
        return (
            structure
            and self.routing_gap.passed
            and self.conversion_gap.passed
            and self.images > self.ambiguous
        )

    @property
    def failure(self) -> str:
        """What failed, in one or two sentences."""
        if self.images == self.ambiguous:
            return f"all {self.images} images have a routing margin below {MARGIN}; give others with --images"
        if not self.structure.get("proved", True):
            return "; ".join(self.structure["violations"])
        name, gap = next(
            (name, gap)
            for name, gap in (("routing", self.routing_gap), ("conversion", self.conversion_gap))
            if not gap.passed
        )
        where = f"; first to diverge: {self.first_divergence}" if self.first_divergence else ""
        if not self.same_checkpoint:
            where += "; the bundle was made from other weights than this checkpoint's"
        return (
            f"{name} gap: max |Δlogit| {gap.max_abs:.3g} (at most {gap.tolerance:.3g}), "
            f"top-1 agreement {gap.top1_agreement:.1%}{where}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The `verify --json` report."""
        return {
            "passed": self.passed,
            "structure": self.structure,
            "routing_gap": self.routing_gap.as_dict(),
            "conversion_gap": self.conversion_gap.as_dict(),
            "router_agreement": self.router_agreement,
            "first_divergence": self.first_divergence,
            "images": self.images,
            "ambiguous": self.ambiguous,
            "synthetic": self.synthetic,
            "same_checkpoint": self.same_checkpoint,
            "min_margin": min(self.margins, default=None),
        }


def verify(
    bundle: str | Path,
    checkpoint: str | Path,
    *,
    images: str | Path | None = None,
    limit: int | None = DEFAULT_LIMIT,
    threads: int | None = None,
    upscale: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
) -> Verification:
    """Prove a bundle on disk equal to a checkpoint folder, on the pictures of a folder or on synthetic ones.

    The structure is read off the written file again. Raises BundleError when the bundle is damaged or was made
    from a checkpoint of another architecture; a failed check is in the answer, not raised.
    """
    tell("loading the checkpoint")
    model = load_checkpoint(checkpoint)
    with open_bundle(bundle, threads=threads, probes=True) as session:
        manifest = session.manifest
        if manifest.config != model.config:
            raise BundleError(
                f"{bundle} was made from a checkpoint with another config.json than {checkpoint}"
            )
        tell("proving the structure of the written graph")
        graph = build_form(manifest.form, model, manifest.plan.buckets[0], options_of(manifest))
        structure = find_target(manifest.target).load_exporter().prove(graph, manifest, Path(bundle))
        if images is None:
            pixels = synthetic_images(DEFAULT_IMAGES, model.config.image_size)
        else:
            pixels = open_images(images, model.config, limit=limit, upscale=upscale).all()
        tell(f"comparing {len(pixels)} images with the float64 reference")
        verification = compare(model, session, pixels, structure, synthetic=images is None)
    same = manifest.checkpoint.sha256 == fingerprint(checkpoint)
    return replace(verification, same_checkpoint=same)


def options_of(manifest: Manifest) -> Options:
    """The unroll's options that a bundle was written with."""
    with_depth = any(port.name == "depth" for port in manifest.outputs)
    return Options(input=manifest.input, with_depth=with_depth, single=manifest.batch == 1)


def compare(
    model: MoRViT, session: Session, images: Pixels, structure: dict[str, Any], *, synthetic: bool = False
) -> Verification:
    """Hold an opened bundle (with probes) against its checkpoint on `images` uint8 (n, height, width, 3)."""
    manifest = session.manifest
    judge = MoRViT(model.config).eval().requires_grad_(False)
    judge.load_state_dict(model.state_dict())
    judge.double()
    options = Options(input=manifest.input, with_depth=False, single=False)
    static = build_form(manifest.form, judge, manifest.plan.buckets[0], options)
    normal = torch.from_numpy(normalise(images, manifest.preprocess)).double()
    exact = _exact_pixels(images, judge) if manifest.input == "uint8" else normal
    reference = judge(exact)
    expected = {
        k: v.numpy()
        for k, v in static(torch.from_numpy(images) if manifest.input == "uint8" else exact).items()
    }
    actual = session.run(images)
    margins = np.array([trace.margin for trace in reference.traces])
    clear = margins > MARGIN
    routing = _gap(reference.logits.numpy(), expected["logits"], clear, EXACT_TOLERANCE)
    conversion = _gap(expected["logits"], actual["logits"], clear, LOGIT_TOLERANCE)
    walk = Walk(model.config, manifest.plan.buckets[0].capacity)
    divergence = None
    if not routing.passed:
        divergence = walk.first_divergence(
            walk.stages_of_reference(reference), walk.stages_of(expected), clear
        )
    elif not conversion.passed:
        divergence = walk.first_divergence(walk.stages_of(expected), walk.stages_of(actual), clear)
    return Verification(
        structure={"form": manifest.form, **structure},
        routing_gap=routing,
        conversion_gap=conversion,
        router_agreement=walk.agreement(reference, actual),
        images=len(images),
        ambiguous=int((~clear).sum()),
        synthetic=synthetic,
        first_divergence=divergence,
        margins=[float(m) for m in margins],
    )


def _exact_pixels(images: Pixels, judge: MoRViT) -> torch.Tensor:
    """Normalised in float64: the judge's input is not rounded to float32 first."""
    preprocess = judge.config.preprocess
    mean, std = (
        torch.tensor(preprocess.mean, dtype=torch.float64),
        torch.tensor(preprocess.std, dtype=torch.float64),
    )
    return ((torch.from_numpy(images).double() / 255 - mean) / std).permute(0, 3, 1, 2)


def _gap(expected: NDArray, actual: NDArray, clear: NDArray[np.bool_], tolerance: float) -> Gap:
    if not clear.any():
        return Gap(0.0, tolerance, 1.0)
    a, b = expected[clear].astype(np.float64), actual[clear].astype(np.float64)
    difference = float(np.abs(a - b).max())
    same = float((a.argmax(axis=-1) == b.argmax(axis=-1)).mean())
    limit = tolerance * max(1.0, float(np.abs(a).max()))
    return Gap(difference if np.isfinite(difference) else float("inf"), limit, same)
