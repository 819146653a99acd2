"""Follows tokens through a graph's probes, step by step, so that two graphs compare decision by decision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.config import Config
from morvit_deploy.model import Outcome
from morvit_deploy.runtime import Arrays

Stages = dict[str, NDArray]  # name -> (images, …), in the order of computation

STATE_TOLERANCE = 1e-3  # × max(1, max |state|): where on the way a failure began


class Walk:
    """Follows tokens through a graph's probes, step by step."""

    def __init__(self, config: Config, capacity: tuple[int, ...]) -> None:
        self.config, self.capacity = config, capacity

    def held(self, outputs: Arrays) -> list[NDArray[np.int64]] | None:
        """Patch numbers (images, kept) that run each step, in the graph's order; None without probes."""
        if self.config.routing == "expert_choice" and "step1.state" not in outputs:
            return None
        count = len(outputs["logits"])
        held = np.tile(np.arange(self.config.num_patches), (count, 1))
        steps = []
        for step, capacity in enumerate(self.capacity, start=1):
            order = outputs.get(f"step{step}.order")
            if order is not None:
                held = np.take_along_axis(held, order[:, :capacity].astype(np.int64), axis=1)
            steps.append(held)
        return steps

    def runs(self, outputs: Arrays) -> NDArray[np.bool_] | None:
        """(steps, images, N): does this patch run this step? None where the graph has no probes."""
        if self.config.routing == "none":
            return np.ones((len(self.capacity), len(outputs["logits"]), self.config.num_patches), dtype=bool)
        if self.config.routing == "token_choice":
            z = outputs.get("depth.router_logits")
            if z is None:
                return None
            depth = z[:, 1:].argmax(axis=-1) + 1
            return np.stack([depth >= layer for layer in range(1, self.config.num_layers + 1)])
        steps = self.held(outputs)
        if steps is None:
            return None
        runs = np.zeros((len(steps), len(outputs["logits"]), self.config.num_patches), dtype=bool)
        for step, held in enumerate(steps):
            np.put_along_axis(runs[step], held, True, axis=1)
        return runs

    def decisions_alike(
        self, reference: Outcome, actual: Arrays, clear: NDArray[np.bool_]
    ) -> NDArray[np.int64] | None:
        """(steps, 2): of the reference's candidates at each step, how many the graph treats alike, and how many.

        Only images where `clear` is true are counted: in the others a decision may fall either way.
        """
        runs = self.runs(actual)
        if runs is None or self.config.routing == "none":
            return None
        counts = np.zeros((len(runs), 2), dtype=np.int64)
        for image in np.flatnonzero(clear):
            for step, decision in enumerate(reference.traces[image].decisions):
                candidates = decision.candidates.numpy()
                goes_on = np.isin(candidates, decision.kept.numpy())
                counts[step] += (runs[step, image, candidates] == goes_on).sum(), len(candidates)
        return counts

    def first_divergence(
        self, wanted: Stages, found: Stages, clear: NDArray[np.bool_], before: int
    ) -> str | None:
        """The first stage at which a judged image differs, with the tensor, the difference and the image.

        `before` images were compared before these: it makes the image's number.
        """
        for stage in [stage for stage in wanted if stage in found]:
            rows = min(
                wanted[stage].shape[1], found[stage].shape[1]
            )  # a last step of CLS alone holds one row
            values, others = wanted[stage][clear, :rows].astype(np.float64), found[stage][clear, :rows]
            with np.errstate(invalid="ignore"):
                difference = np.abs(values - others)
            difference = np.where(np.isfinite(difference), difference, np.inf)
            largest = np.abs(np.nan_to_num(values, posinf=0.0, neginf=0.0)).max()
            if difference.max() > STATE_TOLERANCE * max(1.0, float(largest)):
                worst = int(difference.reshape(len(difference), -1).max(axis=1).argmax())
                image = before + int(np.flatnonzero(clear)[worst])
                return f"{stage} (max |Δ| {difference.max():.3g}, image {image})"
        return None

    def stages_of(self, outputs: Arrays) -> Stages:
        """A graph's probes in the order of computation, tokens sorted: graphs that order tokens otherwise compare."""
        stages: Stages = {name: outputs[name] for name in ("embed", "first") if name in outputs}
        runs, held = self.runs(outputs), self.held(outputs)
        for step in range(1, len(self.capacity) + 1):
            if runs is not None:
                stages[f"step{step}.runs"] = runs[step - 1].astype(np.float64)
            state = outputs.get(f"step{step}.state")
            if state is not None and held is not None:
                stages[f"step{step}.state"] = _token_order(state, held[step - 1])
        stages |= {name: outputs[name] for name in outputs if name.startswith("layer")}
        return stages | {"logits": outputs["logits"]}

    def stages_of_reference(self, reference: Outcome) -> Stages:
        """The same stages of the reference; of a routed step only the tokens that ran it."""
        logits: Stages = {"logits": reference.logits.numpy()}
        if self.config.routing != "expert_choice":
            probes = {n: n if n == "embed" else f"{n}.state" for n in reference.traces[0].states}
            states = {p: np.stack([t.states[n].numpy() for t in reference.traces]) for n, p in probes.items()}
            return states | logits
        early = [name for name in ("embed", "first") if name in reference.traces[0].states]
        stages: Stages = {n: np.stack([t.states[n].numpy() for t in reference.traces]) for n in early}
        for step in range(len(self.capacity)):
            kept = np.stack([trace.decisions[step].kept.numpy() for trace in reference.traces])
            runs = np.zeros((len(kept), self.config.num_patches))
            np.put_along_axis(runs, kept, 1.0, axis=1)
            state = np.stack([trace.states[f"step{step + 1}"].numpy() for trace in reference.traces])
            rows = np.concatenate(
                [np.zeros((len(kept), 1), dtype=kept.dtype), np.sort(kept, axis=1) + 1], axis=1
            )
            stages[f"step{step + 1}.runs"] = runs
            stages[f"step{step + 1}.state"] = np.take_along_axis(state, rows[..., None], axis=1)
        return stages | logits


def _token_order(state: NDArray, held: NDArray[np.int64]) -> NDArray:
    """Rows of state (images, 1 + kept, dim), CLS first, sorted by patch number."""
    if state.shape[1] != held.shape[1] + 1:  # the last step of a model without `last`: CLS alone
        return state
    order = np.argsort(held, axis=1) + 1
    rows = np.concatenate([np.zeros((len(held), 1), dtype=order.dtype), order], axis=1)
    return np.take_along_axis(state, rows[..., None], axis=1)
