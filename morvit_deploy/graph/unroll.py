"""From a trained model and a bucket to a static graph: all steps are unrolled and all shapes are constant.

The static model is an ordinary module that reuses the trained weights and does not depend on a target. In float64 it
is compared with the reference; in float32 it is exported. It has two parts: a stem, which all buckets share and which
ends where the bucket is determined, and a trunk for each bucket.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from morvit_deploy.graph.dense import Dense
from morvit_deploy.graph.expert_choice import ExpertChoice
from morvit_deploy.graph.flat_choice import FlatChoice
from morvit_deploy.graph.merging import Merging
from morvit_deploy.graph.reducing import Attentive, Predicted
from morvit_deploy.graph.step import Carried, StaticRouting
from morvit_deploy.graph.style.styles import DEFAULTS, Options
from morvit_deploy.graph.token_choice import TokenChoice
from morvit_deploy.graph.weights import StaticWeights
from morvit_deploy.model.plan import Bucket, Plan
from morvit_deploy.model.reference import MoRViT

RESULTS = ("logits", "features", "tokens", "depth", "overflow")
STATIC_ROUTINGS: dict[str, type[StaticRouting]] = {
    "expert_choice": ExpertChoice,
    "expert_choice_flat": FlatChoice,
    "token_choice": TokenChoice,
    "none": Dense,
    "merged": Merging,
    "attentive": Attentive,
    "predicted": Predicted,
}


class StaticMoRViT(StaticWeights):
    """One bucket as a static graph. `forward` returns named tensors: logits (or the output asked
    for), depth, overflow, and probes.

    With thresholds, or depths chosen up front, a step holds as many tokens as its capacity. Some of them run; the
    others are padding: tokens that have left, whose state does not change. `overflow` is true for an image with more
    running tokens than a capacity.

    Probes are the tensors that `verify` compares token by token: `step{r}.router_logits` (…, tokens held, 1),
    `step{r}.order` (…, n), the positions of the candidates, best first, `step{r}.runs` (…, capacity), and
    `step{r}.state` (…, tokens, dim). If CLS is routed, it is one of the candidates. A graph for one image
    (`options.single`) has no batch axis inside; logits, depth and overflow always have one.
    """

    def __init__(
        self,
        model: MoRViT,
        bucket: Bucket,
        options: Options = DEFAULTS,
        plan: Plan | None = None,
        routing: type[StaticRouting] | None = None,
    ) -> None:
        chosen = routing or STATIC_ROUTINGS[model.config.routing]
        super().__init__(model, bucket, options, plan, chosen)
        self._routing = chosen

    @property
    def routing(self) -> StaticRouting:
        """The routing's code with the shapes of this bucket."""
        return self._routing(self)

    def for_bucket(self, bucket: Bucket) -> StaticMoRViT:
        """Return the same weights with the shapes of another bucket of the plan."""
        other = copy.copy(self)
        other.capacity = bucket.capacity
        return other

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Run the graph on images in the format of `options.input`; the class documents the result."""
        out: dict[str, Tensor] = {}
        carried = self.begin(image, out)
        self.finish(carried, out)
        return self.with_batch_axis(out)

    def with_batch_axis(self, out: dict[str, Tensor], *, last: bool = True) -> dict[str, Tensor]:
        """Add a batch axis to a one-image graph's results, and convert depth to uint8 if this is the `last` part.

        TensorRT supports uint8 only for inputs and outputs, so depths are int32 inside.
        """
        if self.options.single:
            out = {name: self._result(name, v) if name in RESULTS else v for name, v in out.items()}
        return out | {"depth": out["depth"].to(torch.uint8)} if last and "depth" in out else out

    def _result(self, name: str, value: Tensor) -> Tensor:
        return self.layout.rows(value) if name == "tokens" else self.layout.result(value)

    def begin(self, image: Tensor, out: dict[str, Tensor]) -> Carried:
        """Run the stem, which all buckets share."""
        h = out["embed"] = self.stem(image)
        return self.routing.begin(h, out)

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> None:
        """Run the trunk of this bucket."""
        out[self.options.output] = self.classifier(self.routing.finish(carried, out))

    def counts(self, carried: Carried) -> Tensor:
        """Return the token counts that determine the bucket, int64 (…, steps), from the stem's outputs."""
        return self.routing.counts(carried)


def unroll(
    model: MoRViT, bucket: Bucket, options: Options = DEFAULTS, plan: Plan | None = None
) -> StaticMoRViT:
    """Return the static graph of one bucket, which equals `model` under that bucket's schedule.

    `plan` is the plan of the bucket; without it, the graph routes as the checkpoint does.
    """
    return StaticMoRViT(model, bucket, options, plan).eval()


def unroll_plan(model: MoRViT, plan: Plan, options: Options = DEFAULTS) -> dict[str, StaticMoRViT]:
    """Return the static graph of each bucket by name; they share their weights."""
    first = unroll(model, plan.buckets[0], options, plan)
    return {bucket.name: first.for_bucket(bucket) for bucket in plan.buckets}
