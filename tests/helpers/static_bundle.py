"""A bundle that was never written: its static graphs in float32, in PyTorch, with faults on demand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.model.answers.gates import gate_for
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.verifying.comparison import compare
from morvit_deploy.verifying.merges import routes_of
from morvit_deploy.verifying.outcome import Verification
from morvit_deploy.verifying.routes import Routes

Alter = Callable[[Arrays], None]


def unchanged(outputs: Arrays) -> None:
    """No fault."""


@dataclass
class StaticBundle:
    """Runs a plan's static graphs as a self-dispatching bundle does, `group` images at a time.

    `runs` is the plan whose bounds the bundle has in fact; `alter` changes the outputs of every bucket, and
    `dispatched` those of the whole.
    """

    model: MoRViT
    plan: Plan
    runs: Plan | None = None
    precision: str = "fp32"
    group: int = 1
    reruns: bool = True  # images that overflow run again in `full`
    always_full: bool = False
    alter: Alter = unchanged
    dispatched: Alter = unchanged
    graphs: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        options = Options(input="uint8", with_depth=True, style=STYLES["rows"])
        self.graphs = build_graphs("unrolled", self.model.float(), self.plan, options)

    def verify(self, images: NDArray[np.uint8] | None = None) -> Verification:
        """Compare the bundle with its model."""
        structure = {"proved": True, "violations": []}
        manifest: Any = SimpleNamespace(
            plan=self.plan, config=self.model.config, exact=self.precision == "fp32", precision=self.precision,
            form="unrolled", input="uint8", output="logits", head=self.model.config.head_activation,
            dispatch="graph" if self.plan.adaptive else "single", batch=self.group,
            gate=lambda share: gate_for(self.precision, share),
        )  # fmt: skip  # few lines read better than nine
        return compare(self.model, manifest, self.open, images, structure)

    def open(self, bucket: str | None = None, probes: bool = False) -> AbstractContextManager[Any]:
        """A session of one bucket, or of the whole."""
        name = bucket or (self.plan.buckets[0].name if not self.plan.adaptive else None)
        run = self.whole if name is None else lambda pixels: self.one(name, pixels)
        return nullcontext(SimpleNamespace(run=run, runner=SimpleNamespace(runtime="PyTorch"), warnings=()))

    def one(self, name: str, pixels: NDArray[np.uint8]) -> Arrays:
        """Outputs and probes of one bucket."""
        found = self.graphs[name](torch.from_numpy(pixels))
        outputs = {key: value.numpy().copy() for key, value in found.items()}
        bounds = (self.runs or self.plan).bucket(name).capacity
        wanted = self._routes(name).wanted(outputs)
        if "overflow" in outputs and wanted is not None:
            outputs["overflow"] = (wanted > np.array(bounds)).any(axis=1)
        self.alter(outputs)
        return outputs

    def whole(self, pixels: NDArray[np.uint8]) -> Arrays:
        """Outputs of the bundle, which chooses the bucket of each group."""
        groups = [pixels[start : start + self.group] for start in range(0, len(pixels), self.group)]
        parts = [self._together(group) for group in groups]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self.dispatched(outputs)
        return outputs

    def _together(self, pixels: NDArray[np.uint8]) -> Arrays:
        plan, last = self.runs or self.plan, len(self.plan.buckets) - 1
        everything = self.one(self.plan.buckets[last].name, pixels)
        wanted = self._routes(self.plan.buckets[last].name).wanted(everything)
        assert wanted is not None
        chosen = last if self.always_full else int(plan.predicted(wanted).max())
        outputs = self.one(plan.buckets[chosen].name, pixels)
        if self.reruns and outputs.get("overflow", np.array([False])).any():
            chosen, outputs = last, everything | {"overflow": outputs["overflow"]}
        results = {name: outputs[name] for name in ("logits", "overflow", "depth") if name in outputs}
        return results | {"bucket": np.full(len(pixels), chosen, dtype=np.int32)}

    def _routes(self, name: str) -> Routes:
        return routes_of(self.model.config, self.plan.bucket(name).capacity, self.graphs[name].thresholds)
