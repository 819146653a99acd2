"""Inspection of a checkpoint: its parts and costs and, with images, its routing (paper §3.3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.bundle.answers import check_finite
from morvit_deploy.bundle.images import Entry, ImageFolder, open_images
from morvit_deploy.bundle.pixels import Pixels, digest, normalise
from morvit_deploy.files import Place, check_free, check_outside, new_folder
from morvit_deploy.inspecting.anatomy import (
    AtDepth,
    Macs,
    Stage,
    Tie,
    depths_of,
    mac_counts,
    parameters_by_part,
    stages_of,
    ties_of,
    untied_parameters,
)
from morvit_deploy.inspecting.baseline import compare
from morvit_deploy.inspecting.budget import SmallerBudget
from morvit_deploy.inspecting.degeneracy import assess
from morvit_deploy.inspecting.survey import DepthMaps, Seen, Survey, draw_survey
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.model.checkpoint import fingerprint, load_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.merging import groups_of
from morvit_deploy.model.plan import bucket_macs
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.model.trace import Routing, Trace
from morvit_deploy.report import Report, Shown, count

DEFAULT_LIMIT = 256  # images: enough for shares to a percent, about two minutes for a ViT-B on two cores
DEFAULT_DRAW = 8  # images to draw heat maps of
RECORD = "inspection.json"
_BATCH = 8  # the reference keeps all states of a batch


@dataclass(frozen=True)
class Inspection(Shown):
    """The result of `inspect`."""

    checkpoint: Path
    sha256: str
    config: Config
    parameters: dict[str, int]  # by part
    ties: tuple[Tie, ...]
    untied_parameters: int  # of a plain ViT with the same number of layers
    twins: tuple[tuple[str, str], ...]  # separate blocks with equal weights
    macs: Macs
    stages: tuple[Stage, ...]  # of the checkpoint's own schedule; empty without one
    by_depth: tuple[AtDepth, ...]  # empty unless depth is chosen up front
    survey: Survey | None = None
    folder: Path | None = None  # of the pictures
    maps: DepthMaps | None = field(default=None, compare=False)  # with images, if they are routed

    def __repr__(self) -> str:
        size = f"{count(sum(self.parameters.values()))} parameters, {count(self.macs.static)}MACs"
        images = "" if self.survey is None else f", {self.survey!r}"
        return f"Inspection({str(self.checkpoint)!r}, routing={self.config.routing!r}, {size}{images})"

    def report(self) -> Report:
        """What the model is, what it costs, and, with images, what its routers do."""
        from morvit_deploy.inspecting.views import inspection_report

        return inspection_report(self)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a report."""
        return {
            "format": "morvit-inspection/1",
            "checkpoint": str(self.checkpoint),
            "sha256": self.sha256,
            "config": json.loads(self.config.to_json()),
            "parameters": {**self.parameters, "total": sum(self.parameters.values())},
            "untied_parameters": self.untied_parameters,
            "ties": [asdict(tie) for tie in self.ties],
            "twins": [list(pair) for pair in self.twins],
            "macs": asdict(self.macs),
            "stages": [asdict(stage) for stage in self.stages],
            "by_depth": [asdict(level) for level in self.by_depth],
            "folder": self.folder and str(self.folder),
            "survey": self.survey and self.survey.as_dict(),
        }


@checks_keywords()
def inspect(
    checkpoint: str | Path,
    images: str | Path | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    draw: int = DEFAULT_DRAW,
    out: str | Path | None = None,
    called: Path | None = None,
    upscale: bool = False,
    exif: bool = False,
    force: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Inspection:
    """Parameters, ties and MACs of a checkpoint folder; with a folder of `images`, also what its routers do.

    The reference runs in float32 on at most `limit` of the images, a seeded choice. It runs again with random
    selection of as many tokens, a baseline for the routers, and with fewer tokens in each routed step, which shows
    how much depth matters. With `out`, and if the model routes, writes a folder with heat maps of the first `draw`
    images, `overview.png` and the record. `called` replaces the checkpoint's name in reports, for a converted
    checkpoint. `tell` is called with each stage, `progress` with the share of images done.

    Raises ConfigError, CheckpointError, ImageError or OutputError.

    >>> found = md.inspect("checkpoint", "photos", limit=64)
    >>> print(found.macs.static, found.survey)
    """
    checkpoint, out = Path(checkpoint), None if out is None else Path(out)
    if out is not None:
        images_read = None if images is None else Path(images)
        place: Place = {
            "marker": RECORD,
            "lists": inspection_files,
            "force": force,
            "inputs": (checkpoint, images_read),
        }
        check_outside(out, images_read)
        check_free(out, **place)  # fail before the work
    tell("reading the checkpoint")
    model = load_checkpoint(checkpoint)
    found = replace(_static(checkpoint, model), checkpoint=called or checkpoint)
    if images is None:
        return found
    folder = open_images(images, model.config, limit=limit, upscale=upscale, exif=exif)
    tell(f"running the reference on {len(folder)} images")
    run = _Run(model, folder, keep=max(draw, DEFAULT_DRAW))
    run.over_folder(progress)
    survey = run.survey()
    if survey.assessment is None:
        return replace(found, survey=survey)
    groups = np.stack(run.groups) if run.groups else None
    maps = DepthMaps(np.stack(run.pixels), np.stack(run.depths), groups)
    if out is None:
        return replace(found, survey=survey, maps=maps)
    tell("drawing depth maps")
    with new_folder(out, **place) as partial:
        files = draw_survey(partial, survey, model.config, maps, draw)
        pictures = tuple(file.name for file in files)
        found = replace(found, survey=replace(survey, pictures=pictures), folder=out, maps=maps)
        (partial / RECORD).write_text(
            json.dumps(found.as_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
    return found


def inspection_files(folder: Path, record: dict[str, Any]) -> list[str]:
    """Names of the pictures beside the record."""
    survey = record.get("survey")
    pictures = survey.get("pictures") if isinstance(survey, dict) else None
    return [name for name in pictures or () if isinstance(name, str)]


def _static(checkpoint: Path, model: MoRViT) -> Inspection:
    config = model.config
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    parts, ties = parameters_by_part(sizes), ties_of(config, sizes)
    return Inspection(
        checkpoint=checkpoint,
        sha256=fingerprint(checkpoint),
        config=config,
        parameters=parts,
        ties=ties,
        untied_parameters=untied_parameters(parts, ties),
        twins=_twins(model, [tie.block for tie in ties]),
        macs=mac_counts(config),
        stages=() if config.schedule is None else stages_of(config),
        by_depth=depths_of(config) if config.record.depth_upfront else (),
    )


def _twins(model: MoRViT, blocks: list[str]) -> tuple[tuple[str, str], ...]:
    """Return pairs of separate blocks with equal weights, which could be tied."""
    tensors = {block: list(model.get_submodule(block).state_dict().values()) for block in blocks}
    return tuple(
        (a, b)
        for i, a in enumerate(blocks)
        for b in blocks[i + 1 :]
        if all(torch.equal(x, y) for x, y in zip(tensors[a], tensors[b], strict=True))
    )


class _Run:
    """Runs the reference on a folder; keeps a few numbers of every image, and the pixels of the first `keep`."""

    def __init__(self, model: MoRViT, folder: ImageFolder, keep: int) -> None:
        self.model, self.folder, self.keep = model, folder, keep
        self.seen: list[Seen] = []
        self.depths: list[NDArray[np.uint16]] = []
        self.counts: list[tuple[int, ...]] = []  # tokens that ran each step
        self.spreads: list[list[float]] = []
        self.pixels: list[Pixels] = []
        self.groups: list[NDArray[np.uint16]] = []  # of these pictures, where tokens merge
        self.distinct: dict[str, int] = {}  # digest of pixels -> index of the first image
        self.shuffle = torch.Generator().manual_seed(0)
        self.budget = SmallerBudget(model)

    def over_folder(self, progress: Callable[[float], None]) -> None:
        with fitting_threads(self.model.config):
            for entries, pixels in self.folder.batches(_BATCH):
                self._batch(entries, pixels)
                progress(len(self.seen) / len(self.folder))

    def _batch(self, entries: tuple[Entry, ...], pixels: Pixels) -> None:
        normalised = torch.from_numpy(normalise(pixels, self.model.config.preprocess))
        with torch.inference_mode():
            outcome = self.model(normalised)
            at_random = self._at_random(normalised, outcome.traces)
            if self.model.config.record.routes:
                self.budget.add(normalised, outcome, [entry.label for entry in entries])
        check_finite(outcome.logits.numpy(), "logits of the checkpoint")
        depths, guesses = outcome.depth.numpy().astype(np.uint16), outcome.logits.argmax(dim=1).tolist()
        for entry, shown, depth, guess, chance, trace in zip(
            entries, pixels, depths, guesses, at_random, outcome.traces, strict=True
        ):
            if len(self.pixels) < self.keep:
                self.pixels.append(shown)
                if self.model.config.record.merges:
                    self.groups.append(groups_of(trace.decisions).numpy().astype(np.uint16))
            self.distinct.setdefault(digest(shown), len(self.depths))
            self.depths.append(depth)
            for decision in trace.decisions:
                check_finite(decision.router_logits.numpy(), "router logits of the checkpoint")
            self.spreads.append(_spreads(trace, self.model.config))
            name = entry.path.relative_to(self.folder.folder).as_posix()
            everyone = (self.model.config.num_patches,) * self.model.config.num_steps
            self.counts.append(trace.counts or everyone)  # without routing there are no decisions
            macs = bucket_macs(self.model.config, self.counts[-1], self.model.config.thresholds)
            self.seen.append(Seen(name, entry.label, guess, float(depth.mean()), macs, chance))

    def _at_random(self, normalised: torch.Tensor, traces: list[Trace]) -> list[int] | list[None]:
        """Return the classes if as many tokens are selected at random; None for each image without routing."""
        if not self.model.config.record.routes:
            return [None] * len(normalised)
        return [
            int(self.model(image[None], Routing(capacity=trace.counts, shuffle=self.shuffle)).logits.argmax())
            for image, trace in zip(normalised, traces, strict=True)
        ]

    def survey(self) -> Survey:
        config, depth = self.model.config, np.stack(self.depths)
        assessment = baseline = adaptivity = None
        if config.record.routes:
            seen = [self.seen[i] for i in self.distinct.values()]
            baseline = compare(
                [one.predicted for one in seen],
                [one.random for one in seen if one.random is not None],
                [one.label for one in seen],
            )
            spread = [_mean(column) for column in np.array(self.spreads).T]
            different = depth[list(self.distinct.values())]
            assessment = assess(different, config.num_steps, spread, config.schedule, baseline)
            adaptivity = self.budget.adaptivity(list(self.distinct.values()))
        return Survey(
            images=tuple(self.seen),
            mean_tokens=tuple(np.mean(self.counts, axis=0).tolist()),
            histogram=tuple(np.bincount(depth.ravel(), minlength=config.num_steps + 1) / depth.size),
            assessment=assessment,
            baseline=baseline,
            adaptivity=adaptivity,
        )


def _spreads(trace: Trace, config: Config) -> list[float]:
    """Return the standard deviation of an image's router logits at each step; NaN at a step without selection.

    That of weights is relative to their mean.
    """
    if config.record.depth_upfront:  # a single decision
        return [trace.decisions[0].router_logits.std(dim=1, correction=0).mean().item()]
    # without CLS, whose logit may differ even if all patches agree
    first = 1 if config.record.routes_cls else 0
    return [
        _spread(d.router_logits[first:], config.record.weighs)
        if len(d.kept) < len(d.candidates)
        else float("nan")
        for d in trace.decisions
    ]


def _spread(scores: torch.Tensor, relative: bool) -> float:
    spread = scores.std(correction=0)
    return (spread / scores.mean() if relative else spread).item()


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
