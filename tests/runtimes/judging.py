"""Compares what a runtime returned with the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bundles import Expected
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.model.answers.gates import Gate, allowed_misses
from morvit_deploy.verifying.gaps import LOGIT_TOLERANCE, LogitPairs, gap_of

DECISIONS = ("bucket", "overflow", "depth")  # outputs that must be equal in fp32


@dataclass(frozen=True)
class Judged:
    """The differences of one bundle in one runtime."""

    max_abs: float  # of the logits
    images: int  # compared
    problems: tuple[str, ...] = ()


def judge(manifest: Manifest, expected: Expected, outputs: Arrays) -> Judged:
    """Compare all outputs (images, …): in fp32 where round-off decides nothing, below on all images by the gate."""
    promised = {port.name for port in manifest.outputs}
    if missing := sorted(promised - {*outputs}):
        return Judged(float("inf"), 0, (f"no output {missing[0]!r}",))
    if len(outputs["logits"]) != len(expected.logits):
        return Judged(
            float("inf"), 0, (f"{len(outputs['logits'])} results of {len(expected.logits)} images",)
        )
    gate = manifest.gate(None)
    compared = expected.clear if gate is None else np.ones_like(expected.clear)
    gap = gap_of(expected.logits[compared], outputs["logits"][compared], LOGIT_TOLERANCE)
    if gate is None:
        problems = [] if gap.max_abs <= gap.tolerance else [f"logits differ by {gap.max_abs:.1e}"]
        problems += _changed_classes(expected, outputs, compared, 0)
        problems += [found for name in DECISIONS for found in _unequal(name, expected, outputs, compared)]
    else:
        problems = _below_fp32(gate, manifest, expected, outputs)
    return Judged(gap.max_abs, int(compared.sum()), tuple(problems))


def _changed_classes(
    expected: Expected, outputs: Arrays, compared: NDArray[np.bool_], allowed: int
) -> list[str]:
    differs = expected.logits.argmax(axis=-1) != outputs["logits"].argmax(axis=-1)
    count = int(differs[compared].sum())
    return [f"{count} of {compared.sum()} classes differ"] if count > allowed else []


def _unequal(name: str, expected: Expected, outputs: Arrays, compared: NDArray[np.bool_]) -> list[str]:
    if name not in outputs:
        return []
    differs = (outputs[name] != getattr(expected, name)).reshape(len(compared), -1).any(axis=1)
    count = int(differs[compared].sum())
    return [f"{name} of {count} of {compared.sum()} images differs"] if count else []


def _below_fp32(gate: Gate, manifest: Manifest, expected: Expected, outputs: Arrays) -> list[str]:
    """The gate of the precision: classes, tokens at each step if depths show them, error of the logits."""
    everything = np.ones(len(expected.logits), dtype=bool)
    problems = _changed_classes(expected, outputs, everything, gate.allowed_flips(len(everything)))
    for step in range(1, manifest.config.num_steps + 1 if "depth" in outputs else 1):
        misses = int(((outputs["depth"] >= step) != (expected.depth >= step)).sum())
        if misses > allowed_misses(gate.tokens, expected.depth.size):
            problems.append(f"{misses} of {expected.depth.size} tokens differ at step {step}")
    pairs = LogitPairs()
    pairs.add(expected.logits, outputs["logits"])
    if (found := pairs.median_snr_db()) < gate.snr_db:
        problems.append(f"logits at {found:.1f} dB, at least {gate.snr_db:g} are needed")
    return problems
