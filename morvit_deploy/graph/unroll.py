"""From a trained model and a bucket to a static graph: every step is written out, every shape is known.

The static model reuses the trained weights and imports no target. It is an ordinary module: in float64
it is compared with the reference, in float32 an exporter writes it down. It has two parts, so that buckets can
share the first: the stem ends where the bucket can be known, the trunk is the bucket's own.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from morvit_deploy.graph.dense import Dense
from morvit_deploy.graph.expert_choice import ExpertChoice
from morvit_deploy.graph.flat_choice import FlatChoice
from morvit_deploy.graph.step import Carried, StaticRouting
from morvit_deploy.graph.style.styles import DEFAULTS, Options
from morvit_deploy.graph.token_choice import TokenChoice
from morvit_deploy.graph.weights import StaticWeights
from morvit_deploy.model.plan import Bucket, Plan
from morvit_deploy.model.reference import MoRViT

__all__ = ["RESULTS", "STATIC_ROUTINGS", "Carried", "Options", "StaticMoRViT", "unroll", "unroll_plan"]

RESULTS = ("logits", "depth", "overflow")
STATIC_ROUTINGS: dict[str, type[StaticRouting]] = {
    "expert_choice": ExpertChoice,
    "expert_choice_flat": FlatChoice,
    "token_choice": TokenChoice,
    "none": Dense,
}


class StaticMoRViT(StaticWeights):
    """One bucket as a static graph. `forward` returns named tensors: logits, depth, overflow, and probes.

    Under thresholds, and where depth is chosen up front, a bucket holds as many tokens as its capacity; some of them
    run, the others are pads: tokens that have left, whose state does not change. `overflow` says that an image
    needed more.

    Probes are what `verify` compares token by token: `step{r}.router_logits` (…, tokens held, 1),
    `step{r}.order` (…, n) positions of the candidates, best first, `step{r}.runs` (…, capacity), `step{r}.state`
    (…, tokens, dim); where CLS is routed too, it is one of the candidates. A graph for one image (`options.single`)
    has no batch axis inside; logits, depth and overflow always have one.
    """

    def __init__(
        self,
        model: MoRViT,
        bucket: Bucket,
        options: Options = DEFAULTS,
        plan: Plan | None = None,
        routing: type[StaticRouting] | None = None,
    ) -> None:
        """`routing` is by default the one that the configuration names."""
        chosen = routing or STATIC_ROUTINGS[model.config.routing]
        super().__init__(model, bucket, options, plan, chosen)
        self._routing = chosen

    @property
    def routing(self) -> StaticRouting:
        """The routing in this bucket's shapes."""
        return self._routing(self)

    def for_bucket(self, bucket: Bucket) -> StaticMoRViT:
        """The same weights in the shapes of another bucket of the plan."""
        other = copy.copy(self)
        other.capacity = bucket.capacity
        return other

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image as `options.input` says; see the class for what is returned."""
        out: dict[str, Tensor] = {}
        carried = self.begin(image, out)
        self.finish(carried, out)
        return self.with_batch_axis(out)

    def with_batch_axis(self, out: dict[str, Tensor], *, last: bool = True) -> dict[str, Tensor]:
        """Results have a batch axis, even those of a graph for one image; depth is uint8 if this is the `last` word.

        TensorRT takes uint8 only at a network's edge, so inside depths are int32.
        """
        if self.options.single:
            out = {name: self.layout.result(v) if name in RESULTS else v for name, v in out.items()}
        return out | {"depth": out["depth"].to(torch.uint8)} if last and "depth" in out else out

    # the two parts ------------------------------------------------------------------------------------------

    def begin(self, image: Tensor, out: dict[str, Tensor]) -> Carried:
        """The stem: all that every bucket has in common, up to where the bucket can be known."""
        h = out["embed"] = self.stem(image)
        return self.routing.begin(h, out)

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> None:
        """The trunk: the rest, in this bucket's shapes."""
        cls = self.routing.finish(carried, out)
        out["logits"] = self.classifier(self.layout.cls(cls))

    def counts(self, carried: Carried) -> Tensor:
        """What the bucket is chosen by, from the stem alone: int64 (…, steps)."""
        return self.routing.counts(carried)


def unroll(
    model: MoRViT, bucket: Bucket, options: Options = DEFAULTS, plan: Plan | None = None
) -> StaticMoRViT:
    """The static graph of one bucket, equal to `model` under that bucket's schedule.

    `plan` is the one the bucket belongs to; without, the bucket stands alone and routes by top-k.
    """
    return StaticMoRViT(model, bucket, options, plan).eval()


def unroll_plan(model: MoRViT, plan: Plan, options: Options = DEFAULTS) -> dict[str, StaticMoRViT]:
    """Bucket name to its static graph; all of them hold the same weights."""
    first = unroll(model, plan.buckets[0], options, plan)
    return {bucket.name: first.for_bucket(bucket) for bucket in plan.buckets}
