"""The routes of tokens through a graph, reconstructed from its probes, for a comparison decision by decision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.model.choices import Output
from morvit_deploy.model.config import Config
from morvit_deploy.model.trace import Outcome

Stages = dict[str, NDArray[Any]]  # name -> (images, …), in the order of computation

STATE_TOLERANCE = 1e-3  # × max(1, max |state|): locates the first stage that differs


class Routes:
    """The tokens that each step of a bucket holds and runs, from a graph's probes."""

    def __init__(
        self,
        config: Config,
        capacity: tuple[int, ...],
        thresholds: tuple[float | None, ...] | None = None,
        output: Output = "logits",
    ) -> None:
        self.config, self.capacity, self.output = config, capacity, output
        self.thresholds = thresholds or (None,) * len(capacity)

    def held(self, outputs: Arrays) -> list[NDArray[np.int64]] | None:
        """Return the token numbers (images, held) at each step, in the graph's order; None without probes.

        They are the first `capacity` tokens of the order, or all tokens if tokens may return.
        """
        if self.config.capacity is not None and "step1.state" not in outputs:
            return None
        held = self._everyone(len(outputs[self.output]))
        if "depth.order" in outputs:
            held = outputs["depth.order"].astype(np.int64)
        steps, last = [], self.config.routed_tokens
        for step, capacity in enumerate(self.capacity, start=1):
            order, rows = outputs.get(f"step{step}.order"), capacity if self.config.record.nested else None
            if order is not None:
                held = np.take_along_axis(held, order[:, :rows].astype(np.int64), axis=1)
            held = held[:, :rows]
            steps.append(held)
            if order is not None and self._added:  # candidates of the next step, after those that go on
                added = np.arange(last, last + self._added)
                held = np.concatenate([held, np.tile(added, (len(held), 1))], axis=1)
                last += self._added
        return steps

    @property
    def _added(self) -> int:
        """How many tokens a step appends that some tokens leave."""
        return self.config.record.added_tokens(self.config)

    @property
    def _tokens(self) -> int:
        """Number of token numbers there may be: those that are routed, and those that steps append."""
        return self.config.routed_tokens + self._added * len(self.capacity)

    def runs(self, outputs: Arrays) -> NDArray[np.bool_] | None:
        """Return which tokens run each step, bool (steps, images, routed tokens); None without probes."""
        shape = len(self.capacity), len(outputs[self.output]), self._tokens
        if not self.config.record.routes:
            return np.ones(shape, dtype=bool)
        held = self.held(outputs)
        if self.config.record.depth_upfront:
            depth = self.depths(outputs)
            if depth is None or held is None:
                return None
            who = [np.take_along_axis(depth, h, axis=1) >= layer for layer, h in enumerate(held, start=1)]
        elif held is None:
            return None
        elif not self.config.record.nested:  # the first `capacity` of all tokens
            who = [np.arange(h.shape[1]) < kept for h, kept in zip(held, self.capacity, strict=True)]
        else:
            who = [going for going, _ in self._going(outputs, held)]
        runs = np.zeros(shape, dtype=bool)
        for step, numbers in enumerate(held):
            np.put_along_axis(runs[step], numbers, who[step], axis=1)
        return runs

    def wanted(self, outputs: Arrays) -> NDArray[np.int64] | None:
        """Return how many tokens would run each step if it held them all, by the graph's routers, (images, steps).

        None without probes, or if capacities and not thresholds decide how many run.
        """
        held = self.held(outputs)
        if held is None or not self.config.record.routes:
            return None
        if self.config.record.depth_upfront:
            depth = self.depths(outputs)
            steps = range(1, len(self.capacity) + 1)
            return (
                None if depth is None else np.stack([(depth >= step).sum(axis=1) for step in steps], axis=1)
            )
        if not any(threshold is not None for threshold in self.thresholds):
            return None
        return np.stack([count for _, count in self._going(outputs, held)], axis=1)

    def depths(self, outputs: Arrays) -> NDArray[np.int64] | None:
        """Return the number of steps of each patch token, (images, patches), by the graph's own routers."""
        if self.config.record.depth_upfront:
            z = outputs.get("depth.router_logits")
            return None if z is None else z[:, 1:].argmax(axis=-1).astype(np.int64) + 1
        runs = self.runs(outputs)
        if runs is None or not self.config.record.routes:
            return None
        first = self.config.routed_tokens - self.config.num_patches
        depth: NDArray[np.int64] = runs.sum(axis=0)[:, first : first + self.config.num_patches]
        return depth

    def _going(
        self, outputs: Arrays, held: list[NDArray[np.int64]]
    ) -> list[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
        """Return for each step which held tokens run it, (images, capacity), and how many would, (images,).

        With thresholds, the others are padding.
        """
        going = np.ones((len(held[0]), self.config.num_patches), dtype=bool)
        steps = []
        for step, (numbers, threshold) in enumerate(zip(held, self.thresholds, strict=True), start=1):
            order = outputs.get(f"step{step}.order")
            if threshold is not None:
                going = going & (outputs[f"step{step}.router_logits"][:, 1:, 0] >= threshold)
            wanted = going.sum(axis=1)
            if order is not None:
                going = np.take_along_axis(going, order[:, : numbers.shape[1]].astype(np.int64), axis=1)
            # the probe, if there is one
            going = outputs.get(f"step{step}.runs", going[:, : numbers.shape[1]])
            steps.append((going, wanted))
            if order is not None:
                going = np.pad(going, ((0, 0), (0, self._added)), constant_values=True)
        return steps

    def decisions_alike(
        self,
        reference: Outcome,
        actual: Arrays,
        clear: NDArray[np.bool_],
        flips: list[list[float]] | None = None,
    ) -> NDArray[np.int64] | None:
        """Count equal decisions for the reference's candidates at each step, (steps, 2): equal, total.

        Only images where `clear` is true are counted; others have too small a margin. The margins of different
        decisions, in router logits, are appended to `flips`, a list for each step.
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
        """Count patch tokens that are routed as in the reference at each step, (steps, 2): equal, total."""
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
        """Return the first stage at which a compared image differs, with the difference and the image's index.

        `before` images were compared in earlier chunks.
        """
        for stage in [stage for stage in wanted if stage in found]:
            rows = min(wanted[stage].shape[1], found[stage].shape[1])  # a last step of CLS only has one row
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
        """Return a graph's probes in order of computation; states of running tokens are at their token's row."""
        stages: Stages = {name: outputs[name] for name in ("embed", "first") if name in outputs}
        runs, held = self.runs(outputs), self.held(outputs)
        for step in range(1, len(self.capacity) + 1):
            if runs is not None:
                stages[f"step{step}.runs"] = runs[step - 1].astype(np.float64)
            state = outputs.get(f"step{step}.state")
            if state is not None and held is not None and runs is not None:
                stages[f"step{step}.state"] = self._spread(state, held[step - 1], runs[step - 1])
        stages |= {name: outputs[name] for name in outputs if name.startswith("layer")}
        return stages | {self.output: outputs[self.output].reshape(len(outputs[self.output]), -1)}

    def stages_of_reference(self, reference: Outcome) -> Stages:
        """Return the same stages of the reference."""
        answer: Stages = {self.output: reference.answer.numpy()}
        names = reference.traces[0].states
        states = {n: np.stack([t.states[n].numpy() for t in reference.traces]) for n in names}
        if not self.config.record.routes:
            return {n if n == "embed" else f"{n}.state": state for n, state in states.items()} | answer
        stages: Stages = {name: states[name] for name in ("embed", "first") if name in states}
        everyone = np.tile(np.arange(self._tokens), (len(reference.traces), 1))
        for step, runs in enumerate(self._widened(reference.runs.numpy()), start=1):
            stages[f"step{step}.runs"] = runs.astype(np.float64)
            state = states[f"step{step}"]
            rows = state.shape[1] - (not self.config.record.routes_cls)  # later steps append tokens
            stages[f"step{step}.state"] = self._spread(state, everyone[:, :rows], runs)
        return stages | answer

    def _everyone(self, images: int) -> NDArray[np.int64]:
        """Return the numbers of all routed tokens, in order, (images, routed tokens)."""
        return np.tile(np.arange(self.config.routed_tokens), (images, 1))

    def _widened(self, runs: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return runs (steps, images, n) with a column for each token number that there may be."""
        missing = self._tokens - runs.shape[-1]
        return np.pad(runs, ((0, 0), (0, 0), (0, missing)))

    def _spread(self, state: NDArray[Any], held: NDArray[np.int64], runs: NDArray[np.bool_]) -> NDArray[Any]:
        """Place rows of states at their token's index, (images, N + 1, dim); zeros for tokens that do not run.

        If CLS is not routed, it is the first row, before the held tokens.
        """
        if not self.config.record.routes_cls:
            held, runs = (
                np.pad(held + 1, ((0, 0), (1, 0))),
                np.pad(runs, ((0, 0), (1, 0)), constant_values=True),
            )
        if state.shape[1] < held.shape[1]:  # the last step without a `last` block: CLS only
            return state
        state = state[:, : held.shape[1]]  # a token that the step appended is first decided on at the next
        tokens = np.zeros((len(state), runs.shape[1], state.shape[2]), dtype=state.dtype)
        np.put_along_axis(tokens, held[..., None], state, axis=1)
        return np.where(runs[..., None], tokens, 0)


def margins_of(z: NDArray[Any], goes_on: NDArray[np.bool_], threshold: float | None) -> NDArray[np.float64]:
    """Return the margin of each candidate's decision (n,), from router logits z (n,), or (n, layers) for depths.

    The margin is the distance to the threshold; without one, to the middle between kept and dropped tokens; for
    depths, between the two highest logits.
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
