"""The modules that exporters trace: one bucket as a whole, or a stem and a trunk per bucket."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from morvit_deploy.graph.maths.dispatch import cheapest_fitting, predicted
from morvit_deploy.graph.unroll import RESULTS, StaticMoRViT
from morvit_deploy.model.plan import Plan


class Named(nn.Module):
    """A module from tensors to named tensors."""

    inputs: tuple[str, ...]
    results: tuple[str, ...]  # the graph's outputs; all other names are probes

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Take tensors in the order of `inputs`; returns results and probes by name."""
        raise NotImplementedError


class Whole(Named):
    """One bucket from image to results."""

    inputs = ("image",)

    def __init__(self, static: StaticMoRViT) -> None:
        super().__init__()
        self.static = static
        self.results = results_of(static)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = self.static(*inputs)
        return out


class StemPart(Named):
    """The stem: from an image to the trunks' inputs and the index of each image's bucket.

    If the images of a batch run `together` in one bucket, depths that are known choose one that fits them all.
    """

    inputs = ("image",)

    def __init__(
        self, static: StaticMoRViT, plan: Plan, carried: dict[str, str], *, together: bool = False
    ) -> None:
        super().__init__()
        self.static, self.plan, self.carried = static, plan, carried
        self.together = together and plan.mode == "depth" and not static.options.single
        self.results = ("bucket", *carried.values(), *_stem_results(static))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        (image,) = inputs
        out: dict[str, Tensor] = {}
        carried = self.static.begin(image, out)
        counts = self.static.counts(carried)
        if (
            self.together
        ):  # buckets need not be nested: that of the neediest image may be too small for another
            counts = counts.amax(dim=0, keepdim=True).expand_as(counts)
        bucket = choose(self.plan, counts)
        out["bucket"] = bucket if bucket.ndim else bucket[None]
        return self.static.with_batch_axis(out) | {self.carried[key]: value for key, value in carried.items()}


class TrunkPart(Named):
    """The trunk of a bucket: from the stem's outputs to results. With `inside` (another graph), depths are int32."""

    def __init__(self, static: StaticMoRViT, carried: dict[str, str], *, inside: bool = False) -> None:
        super().__init__()
        self.static, self.carried, self.inside = static, carried, inside
        self.inputs = tuple(carried.values())
        stem = _stem_results(static)
        self.results = tuple(name for name in results_of(static) if name not in stem)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        self.static.finish(dict(zip(self.carried, inputs, strict=True)), out)
        return self.static.with_batch_axis(out, last=not self.inside)


class EmptyResults(Named):
    """Zeros in the shapes of a trunk's results, for images that run in `full` only."""

    def __init__(self, trunk: TrunkPart) -> None:
        super().__init__()
        self.inputs, self.results, self.static = trunk.inputs, trunk.results, trunk.static

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        config = self.static.config
        batch = 1 if self.static.options.single else inputs[0].shape[0]
        empty = {
            "logits": torch.zeros(batch, config.num_classes),
            "features": torch.zeros(batch, config.embed_dim),
            "tokens": torch.zeros(batch, config.num_patches, config.embed_dim),
            "overflow": torch.zeros(batch, dtype=torch.bool),
            "depth": torch.zeros(batch, config.num_patches, dtype=torch.int32),
        }
        return {name: empty[name] for name in self.results}


def name_carried(static: StaticMoRViT, image: Tensor) -> tuple[dict[str, str], list[Tensor]]:
    """Return the stem's outputs for the trunks: names by key, and example values.

    An output that is also a probe has the probe's name.
    """
    out: dict[str, Tensor] = {}
    carried = static.begin(image, out)
    names = {
        key: next(
            (name for name, probe in out.items() if probe is value and name not in RESULTS), f"stem.{key}"
        )
        for key, value in carried.items()
    }
    return names, list(carried.values())


def choose(plan: Plan, counts: Tensor) -> Tensor:
    """Return int32 bucket indices, one for each image, from the stem's counts (…, steps)."""
    if plan.mode == "threshold":  # the stem counts one step: (…, 1)
        return predicted(counts.flatten(), tuple(bucket.upto or 0 for bucket in plan.buckets))
    return cheapest_fitting(counts, tuple(bucket.capacity for bucket in plan.buckets))


def results_of(static: StaticMoRViT) -> tuple[str, ...]:
    """Return the outputs of a graph; `overflow` only with thresholds, where the predicted bucket can be too small."""
    overflows = any(threshold is not None for threshold in static.thresholds or ())
    has = {static.options.output: True, "depth": static.options.with_depth, "overflow": overflows}
    return tuple(name for name in RESULTS if has.get(name, False))


def _stem_results(static: StaticMoRViT) -> tuple[str, ...]:
    """Results that the stem computes."""
    known = static.options.with_depth and static.config.record.depth_upfront
    return ("depth",) if known else ()
