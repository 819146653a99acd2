"""The routes of tokens that merge: which of them do at each step, and into which others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.model.choices import Output
from morvit_deploy.model.config import Config
from morvit_deploy.model.trace import Decision, Outcome
from morvit_deploy.verifying.routes import Routes, Stages


@dataclass(frozen=True)
class Merge:
    """One step of a graph."""

    held: NDArray[np.int64]  # (images, held) the tokens that go on, in the graph's order
    into: NDArray[
        np.int64
    ]  # (images, patches) the token that each goes on in: itself, if it does not merge here


class MergeRoutes(Routes):
    """The same for routings with `merges`: a decision is right if a token also merges into the right one."""

    def held(self, outputs: Arrays) -> list[NDArray[np.int64]] | None:
        merges = self.merges(outputs)
        return None if merges is None else [merge.held for merge in merges]

    def runs(self, outputs: Arrays) -> NDArray[np.bool_] | None:
        held = self.held(outputs)
        if held is None:
            return None
        runs = np.zeros((len(held), len(outputs[self.output]), self.config.num_patches), dtype=bool)
        for step, numbers in enumerate(held):
            np.put_along_axis(runs[step], numbers, True, axis=1)
        return runs

    def merges(self, outputs: Arrays) -> list[Merge] | None:
        """Return what merges at each step by a graph's probes; None without them.

        `step{r}.order` (images, merged) are positions in side A, `step{r}.into` (images, merged, side B) has a 1 at
        the partner of each.
        """
        numbers, found = self._everyone(len(outputs[self.output])), []
        for step in range(1, len(self.capacity) + 1):
            if f"step{step}.order" not in outputs or f"step{step}.into" not in outputs:
                return None
            order = outputs[f"step{step}.order"].astype(np.int64)
            partner = outputs[f"step{step}.into"].argmax(axis=-1)
            a, b = numbers[:, 1::2], numbers[:, ::2]
            into = self._everyone(len(numbers))
            merging = np.take_along_axis(a, order, axis=1)
            np.put_along_axis(into, merging, np.take_along_axis(b, partner, axis=1), axis=1)
            taken = np.zeros(a.shape, dtype=bool)
            np.put_along_axis(taken, order, True, axis=1)
            staying = np.argsort(taken, axis=1, kind="stable")[:, : a.shape[1] - order.shape[1]]
            numbers = np.concatenate([np.take_along_axis(a, staying, axis=1), b], axis=1)
            found.append(Merge(numbers, into))
        return found

    def decisions_alike(
        self,
        reference: Outcome,
        actual: Arrays,
        clear: NDArray[np.bool_],
        flips: list[list[float]] | None = None,
    ) -> NDArray[np.int64] | None:
        merges = self.merges(actual)
        if merges is None:
            return None
        counts = np.zeros((len(merges), 2), dtype=np.int64)
        for image in np.flatnonzero(clear):
            for step, decision in enumerate(reference.traces[image].decisions):
                alike = _alike(decision, merges[step].into[image])
                counts[step] += alike.sum(), len(alike)
                if flips is not None and not alike.all():
                    flips[step].append(decision.margin)
        return counts

    def tokens_alike(self, reference: Outcome, actual: Arrays) -> NDArray[np.int64] | None:
        return self.decisions_alike(reference, actual, np.ones(len(reference.traces), dtype=bool))

    def stages_of(self, outputs: Arrays) -> Stages:
        """Return a graph's probes in order of computation; as tokens merge alike, their order is the same."""
        stages: Stages = {
            name: value for name, value in outputs.items() if name.endswith((".state", "embed"))
        }
        answer = outputs[self.output]
        return self._with_merges(stages, self.merges(outputs)) | {
            self.output: answer.reshape(len(answer), -1)
        }

    def stages_of_reference(self, reference: Outcome) -> Stages:
        names = reference.traces[0].states
        stages: Stages = {
            name if name == "embed" else f"{name}.state": np.stack(
                [trace.states[name].numpy() for trace in reference.traces]
            )
            for name in names
        }
        into = [
            np.stack([_into(trace.decisions[step], self.config.num_patches) for trace in reference.traces])
            for step in range(len(self.capacity))
        ]
        merges = [Merge(part, part) for part in into]
        return self._with_merges(stages, merges) | {self.output: reference.answer.numpy()}

    @staticmethod
    def _with_merges(stages: Stages, merges: list[Merge] | None) -> Stages:
        """Put what merges at a step before the states after it."""
        if merges is None:
            return stages
        found: Stages = {}
        for name, value in stages.items():
            if name.startswith("step"):
                step = int(name.removeprefix("step").partition(".")[0])
                found[f"step{step}.into"] = merges[step - 1].into.astype(np.float64)
            found[name] = value
        return found


def _alike(decision: Decision, into: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of a decision's candidates go on in the same token."""
    assert decision.into is not None
    alike: NDArray[np.bool_] = into[decision.candidates.numpy()] == decision.into.numpy()
    return alike


def _into(decision: Decision, patches: int) -> NDArray[np.int64]:
    """The token that each patch's token goes on in (patches,): itself, if it has merged before or does not merge."""
    assert decision.into is not None
    into = np.arange(patches)
    into[decision.candidates.numpy()] = decision.into.numpy()
    return into


def routes_of(
    config: Config,
    capacity: tuple[int, ...],
    thresholds: tuple[float | None, ...] | None = None,
    output: Output = "logits",
) -> Routes:
    """Return the routes of a bucket's tokens."""
    return (MergeRoutes if config.record.merges else Routes)(config, capacity, thresholds, output)
