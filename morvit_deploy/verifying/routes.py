"""Follows tokens through a graph's probes, step by step, so that two graphs compare decision by decision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.model.config import Config
from morvit_deploy.model.reference import Outcome

Stages = dict[str, NDArray[Any]]  # name -> (images, …), in the order of computation

STATE_TOLERANCE = 1e-3  # × max(1, max |state|): where on the way a failure began


class Routes:
    """The tokens that each step of one bucket holds and runs, from a graph's probes."""

    def __init__(
        self,
        config: Config,
        capacity: tuple[int, ...],
        thresholds: tuple[float | None, ...] | None = None,
    ) -> None:
        self.config, self.capacity = config, capacity
        self.thresholds = thresholds or (None,) * len(capacity)

    def held(self, outputs: Arrays) -> list[NDArray[np.int64]] | None:
        """Token numbers (images, held) at each step, in the graph's order; None without probes.

        Those are the first `capacity` of the order, or, where they may come back, all.
        """
        if self.config.capacity is not None and "step1.state" not in outputs:
            return None
        held = self._everyone(len(outputs["logits"]))
        if "depth.order" in outputs:
            held = outputs["depth.order"].astype(np.int64)
        steps = []
        for step, capacity in enumerate(self.capacity, start=1):
            order, rows = outputs.get(f"step{step}.order"), capacity if self.config.nested else None
            if order is not None:
                held = np.take_along_axis(held, order[:, :rows].astype(np.int64), axis=1)
            held = held[:, :rows]
            steps.append(held)
        return steps

    def runs(self, outputs: Arrays) -> NDArray[np.bool_] | None:
        """(steps, images, routed tokens): does this token run this step? None where the graph has no probes."""
        shape = len(self.capacity), len(outputs["logits"]), self.config.routed_tokens
        if not self.config.record.routes:
            return np.ones(shape, dtype=bool)
        held = self.held(outputs)
        if self.config.record.depth_upfront:
            z = outputs.get("depth.router_logits")
            if z is None or held is None:
                return None
            depth = z[:, 1:].argmax(axis=-1) + 1
            who = [np.take_along_axis(depth, h, axis=1) >= layer for layer, h in enumerate(held, start=1)]
        elif held is None:
            return None
        elif not self.config.nested:  # the first of all
            who = [np.arange(h.shape[1]) < kept for h, kept in zip(held, self.capacity, strict=True)]
        else:
            who = self._going(outputs, held)
        runs = np.zeros(shape, dtype=bool)
        for step, numbers in enumerate(held):
            np.put_along_axis(runs[step], numbers, who[step], axis=1)
        return runs

    def _going(self, outputs: Arrays, held: list[NDArray[np.int64]]) -> list[NDArray[np.bool_]]:
        """(images, capacity) for each step: who of those held runs it; under a threshold the others are pads."""
        going = np.ones((len(held[0]), self.config.num_patches), dtype=bool)
        steps = []
        for step, (numbers, threshold) in enumerate(zip(held, self.thresholds, strict=True), start=1):
            order = outputs.get(f"step{step}.order")
            if threshold is not None and going.shape[1]:
                going = going & (outputs[f"step{step}.router_logits"][:, 1:, 0] >= threshold)
            if order is not None:
                going = np.take_along_axis(going, order[:, : numbers.shape[1]].astype(np.int64), axis=1)
            going = outputs.get(
                f"step{step}.runs", going[:, : numbers.shape[1]]
            )  # the graph's own probe, where it has one
            steps.append(going)
        return steps

    def decisions_alike(
        self,
        reference: Outcome,
        actual: Arrays,
        clear: NDArray[np.bool_],
        flips: list[list[float]] | None = None,
    ) -> NDArray[np.int64] | None:
        """(steps, 2): of the reference's candidates at each step, how many the graph treats alike, and how many.

        Only images where `clear` is true are counted: in the others a decision may fall either way. The margins of
        those treated otherwise, in router logits, join `flips`, a list for each step.
        """
        runs = self.runs(actual)
        if runs is None or not self.config.record.routes:
            return None
        counts = np.zeros((len(runs), 2), dtype=np.int64)
        for image in np.flatnonzero(clear):
            for step, decision in enumerate(reference.traces[image].decisions):
                candidates = decision.candidates.numpy()
                goes_on = np.isin(candidates, decision.kept.numpy())
                alike = runs[step, image, candidates] == goes_on
                counts[step] += alike.sum(), len(candidates)
                if flips is not None and not alike.all():
                    margins = margins_of(decision.router_logits.numpy(), goes_on, self.thresholds[step])
                    flips[step] += margins[~alike].tolist()
        return counts

    def tokens_alike(self, reference: Outcome, actual: Arrays) -> NDArray[np.int64] | None:
        """(steps, 2): of all patch tokens of all images, how many run a step, or do not, as in the reference."""
        runs = self.runs(actual)
        if runs is None or not self.config.record.routes:
            return None
        alike = np.zeros(len(runs), dtype=np.int64)
        for image, trace in enumerate(reference.traces):
            for step, decision in enumerate(trace.decisions):
                expected = np.zeros(runs.shape[-1], dtype=bool)
                expected[decision.kept.numpy()] = True
                alike[step] += (runs[step, image] == expected).sum()
        return np.stack([alike, np.full_like(alike, runs[0].size)], axis=1)

    def first_divergence(
        self, wanted: Stages, found: Stages, clear: NDArray[np.bool_], before: int
    ) -> str | None:
        """The first stage at which a compared image differs, with the tensor, the difference and the image.

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
        """A graph's probes in the order of computation, each state at its token's row, of those that run the step."""
        stages: Stages = {name: outputs[name] for name in ("embed", "first") if name in outputs}
        runs, held = self.runs(outputs), self.held(outputs)
        for step in range(1, len(self.capacity) + 1):
            if runs is not None:
                stages[f"step{step}.runs"] = runs[step - 1].astype(np.float64)
            state = outputs.get(f"step{step}.state")
            if state is not None and held is not None and runs is not None:
                stages[f"step{step}.state"] = self._spread(state, held[step - 1], runs[step - 1])
        stages |= {name: outputs[name] for name in outputs if name.startswith("layer")}
        return stages | {"logits": outputs["logits"]}

    def stages_of_reference(self, reference: Outcome) -> Stages:
        """The same stages of the reference."""
        logits: Stages = {"logits": reference.logits.numpy()}
        names = reference.traces[0].states
        states = {n: np.stack([t.states[n].numpy() for t in reference.traces]) for n in names}
        if not self.config.record.routes:
            return {n if n == "embed" else f"{n}.state": state for n, state in states.items()} | logits
        stages: Stages = {name: states[name] for name in ("embed", "first") if name in states}
        everyone = self._everyone(len(reference.traces))
        for step, runs in enumerate(reference.runs.numpy(), start=1):
            stages[f"step{step}.runs"] = runs.astype(np.float64)
            stages[f"step{step}.state"] = self._spread(states[f"step{step}"], everyone, runs)
        return stages | logits

    def _everyone(self, images: int) -> NDArray[np.int64]:
        """(images, routed tokens): their numbers, in order."""
        return np.tile(np.arange(self.config.routed_tokens), (images, 1))

    def _spread(self, state: NDArray[Any], held: NDArray[np.int64], runs: NDArray[np.bool_]) -> NDArray[Any]:
        """Rows of state to (images, N + 1, dim), each at its token's place; zeros where a token does not run.

        Where CLS is not routed, it is the first row, before those of `held`.
        """
        if not self.config.routes_cls:
            held, runs = (
                np.pad(held + 1, ((0, 0), (1, 0))),
                np.pad(runs, ((0, 0), (1, 0)), constant_values=True),
            )
        if state.shape[1] != held.shape[1]:  # the last step of a model without `last`: CLS alone
            return state
        tokens = np.zeros((len(state), runs.shape[1], state.shape[2]), dtype=state.dtype)
        np.put_along_axis(tokens, held[..., None], state, axis=1)
        return np.where(runs[..., None], tokens, 0)


def margins_of(z: NDArray[Any], goes_on: NDArray[np.bool_], threshold: float | None) -> NDArray[np.float64]:
    """How far each candidate (n,) is from the other decision, in router logits z (n,) or, for depths, (n, layers).

    From the threshold; without one, from the middle between who goes on and who does not; between the two likeliest
    depths.
    """
    if z.ndim == 2:
        best = np.sort(z, axis=1)[:, -2:]
        lead: NDArray[np.float64] = best[:, -1] - best[:, 0]
        return lead
    if threshold is not None:
        return np.abs(z - threshold)
    if goes_on.all() or not goes_on.any():
        return np.full(len(z), np.inf)
    boundary: float = (z[goes_on].min() + z[~goes_on].max()) / 2
    return np.abs(z - boundary)
