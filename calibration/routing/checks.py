"""Checks the statistics of a round: which arrays there are, and whether their numbers agree. No torch.

Statistics come from files that others may have written, cut off or edited; a plan must not be fitted to half of the
images because an array is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from morvit_deploy.calibration.routing.sequence import kinds_of, rounds_of, routed, scales_of
from morvit_deploy.calibration.routing.statistics import Statistics
from morvit_deploy.model.config import Config

ROUNDING = (
    1e-3  # of all tokens: on another processor, logits within rounding of a threshold fall on its other side
)


def problems_of(found: Statistics, config: Config) -> list[str]:
    """What contradicts the checkpoint or itself, each with the array's name; empty for sound statistics.

    `found` is of one shard, or of several that were joined.
    """
    run = found.run
    if run.mode not in config.record.modes:
        return [f"mode: got {run.mode!r}, expected {' or '.join(map(repr, config.record.modes))}"]
    if run.scales != (scales := scales_of(config, run.mode)):
        return [f"scales: got {list(run.scales)}, expected {list(scales)}"]
    if found.round >= (rounds := rounds_of(config, run.mode)):
        return [f"round: got {found.round + 1}, expected 1 … {rounds}"]
    is_last = found.round + 1 == rounds
    problems = [*_of_images(found), *_of_arrays(found, config, is_last)]
    if not problems:
        problems = [*(_of_results(found, config) if is_last else _of_histograms(found, config))]
    return problems


def problems_between(done: Sequence[Statistics], config: Config) -> list[str]:
    """What contradicts itself between the rounds of mode `threshold`.

    A round counts the logits of the tokens that the threshold before keeps, and the last round counts these tokens.
    """
    *rounds, last = done
    if last.run.mode != "threshold" or last.counts is None:
        return []
    slack = ROUNDING * last.images * config.num_patches
    problems = []
    for number, (step, found) in enumerate(zip(routed(config), rounds[1:], strict=False), start=2):
        ran = last.counts[:, :, step].sum(axis=0, dtype=int).tolist()
        problems += [
            f"histograms of round {number}: got {histogram.total} tokens at scale {scale:g}, expected {kept}, which "
            f"run step {step + 1} in counts of round {len(done)}"
            for scale, histogram, kept in zip(last.run.scales, found.histograms, ran, strict=True)
            if abs(histogram.total - kept) > slack
        ]
    return problems


def _of_images(found: Statistics) -> Iterator[str]:
    total, expected = found.images + len(found.bad), found.run.count
    if total > expected or (found.complete and total != expected):
        most = "" if found.complete else "at most "
        yield (
            f"images: got {found.images} and {len(found.bad)} unreadable ones, expected {most}{expected} of the run"
        )
    if len({name for name, _ in found.bad}) != len(found.bad):
        yield "bad: an image is named twice"
    if len(found.thresholds) != len(found.run.scales):
        yield f"thresholds: got {len(found.thresholds)}, expected one for each of {len(found.run.scales)} scales"


def _of_arrays(found: Statistics, config: Config, is_last: bool) -> Iterator[str]:
    """Arrays that are missing, or that this round does not have."""
    has_results = is_last and found.images > 0
    expected = {
        "histograms": not is_last,
        "counts": has_results and found.run.mode != "topk",
        **dict.fromkeys(found.tallies, False),
        **dict.fromkeys(tally_shapes(kinds_of(config, found.run.mode), 1, 1), has_results),
    }
    present = {*found.tallies} | {name for name in ("histograms", "counts") if _has(found, name)}
    for name, wanted in expected.items():
        if wanted != (name in present):
            yield f"{name}: {'missing' if wanted else 'not expected'} in this round"


def _has(found: Statistics, name: str) -> bool:
    return bool(found.histograms) if name == "histograms" else found.counts is not None


def tally_shapes(kinds: Sequence[str], scales: int, steps: int) -> dict[str, tuple[int, ...]]:
    """The tallies of a mode that compares these kinds, and their shapes."""
    shapes: dict[str, tuple[int, ...]] = {"labelled": (), "right": ()}
    shapes |= {f"{kind}.{what}": (scales,) for kind in kinds for what in ("alike", "right")}
    return shapes | ({"threshold.decisions": (scales, steps)} if "threshold" in kinds else {})


def _of_histograms(found: Statistics, config: Config) -> Iterator[str]:
    tokens = found.images * config.num_patches
    is_first = found.round == 0
    first: dict[Any, int] = {}
    for i, (histogram, under) in enumerate(zip(found.histograms, found.thresholds, strict=True)):
        if histogram.total > tokens or (is_first and histogram.total != tokens):
            most = "" if is_first else "at most "
            yield f"histograms[{i}]: got {histogram.total} tokens, expected {most}{tokens}"
        same = found.histograms[first.setdefault(under, i)]
        if not np.array_equal(histogram.counts, same.counts):
            yield f"histograms[{i}]: differs from histograms[{first[under]}], which has equal thresholds"


def _of_results(found: Statistics, config: Config) -> Iterator[str]:
    """Counts and tallies of the last round."""
    if found.counts is not None:
        yield from _of_counts(found, config)
    if found.tallies:
        wrong = [*_of_tallies(found, config)]
        yield from wrong or _of_answers(found)


def _of_counts(found: Statistics, config: Config) -> Iterator[str]:
    counts, patches = found.counts, config.num_patches
    assert counts is not None
    expected = (found.images, len(found.run.scales), config.num_steps)
    if counts.shape != expected or counts.dtype != np.min_scalar_type(patches):
        yield (
            f"counts: got {counts.dtype} {counts.shape}, expected {np.min_scalar_type(patches)} {expected}"
        )
    elif counts.max(initial=0) > patches:
        yield f"counts: got {counts.max()} tokens, expected at most {patches}"
    elif (counts[..., 1:] > counts[..., :-1]).any():
        yield "counts: got more tokens at a step than at the one before; none returns"


def _of_tallies(found: Statistics, config: Config) -> Iterator[str]:
    """Tallies of another type or shape, or outside 0 … images."""
    kinds = kinds_of(config, found.run.mode)
    shapes = tally_shapes(kinds, len(found.run.scales), config.num_steps)
    for name, shape in shapes.items():
        tally = np.asarray(found.tallies[name])
        most = found.images * (config.num_patches if name == "threshold.decisions" else 1)
        if tally.shape != shape or tally.dtype.kind not in "iu":
            yield f"tally {name}: got {tally.dtype} {tally.shape}, expected integers {shape}"
        elif tally.min() < 0 or tally.max() > most:
            yield f"tally {name}: got {tally.min()} … {tally.max()}, expected 0 … {most}"


def _of_answers(found: Statistics) -> Iterator[str]:
    """An image can only be right if it has a label, and right or wrong alone where two models differ."""
    labelled, right = int(found.tallies["labelled"]), int(found.tallies["right"])
    if right > labelled:
        yield f"tally right: got {right}, expected at most {labelled} (labelled)"
    for name, tally in found.tallies.items():
        kind, _, what = name.partition(".")
        if what != "right":
            continue
        differing = found.images - np.asarray(found.tallies[f"{kind}.alike"])
        if (tally > labelled).any() or (np.abs(np.asarray(tally) - right) > differing).any():
            yield (
                f"tally {name}: got {np.asarray(tally).tolist()}, which contradicts right ({right}), labelled "
                f"({labelled}) and {kind}.alike"
            )
