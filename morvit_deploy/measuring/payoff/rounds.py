"""Measures adaptive, top-k and dense forms at several batch sizes in one run. Exporting them imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.agent.core.running import AT_A_TIME
from morvit_deploy.bundle.links import open_linked
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.bundle.pixels import Pixels, digest
from morvit_deploy.calibration.routing.sequence import OWN
from morvit_deploy.errors import TargetError
from morvit_deploy.files import temporary
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.machine.this import checked_threads
from morvit_deploy.measuring.core.devices import check_here
from morvit_deploy.measuring.core.inputs import STREAM, Source, Subject, draw, in_rounds
from morvit_deploy.measuring.core.request import settings
from morvit_deploy.measuring.cpu.lanes import BundleLane, BundleProcesses, parities
from morvit_deploy.measuring.payoff.forms import (
    Batch,
    check_forms,
    export_forms,
    forms_of,
    is_form,
    left_out,
)
from morvit_deploy.measuring.payoff.result import Contender, Match, Payoff
from morvit_deploy.timing.loop import BLOCKS, WARMUP, Amount, Stages, measure, parts_of
from morvit_deploy.timing.result import warnings_about

BATCHES = (1, 8, 32)
SYNTHETIC = (
    "measured with synthetic pictures, which use other buckets than yours would; give --images to measure with your "
    "own"
)


@checks_keywords()
def payoff(
    bundle: str | Path,
    checkpoint: str | Path,
    *,
    batches: Sequence[int] = BATCHES,
    topk_scale: float = OWN,
    device: str = "cpu",
    threads: int | None = None,
    images: str | Path | None = None,
    upscale: bool = False,
    exif: bool = False,
    runs: int | None = None,
    blocks: int = BLOCKS,
    warmup: int = WARMUP,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Payoff:
    """Is the plan of `bundle` faster than fixed schedules of the same checkpoint on the same pictures?

    `topk_scale` is the factor of the trained capacities that top-k runs with: give the one at which top-k is as
    accurate as the plan. The forms are exported to a temporary folder: for one image where the batch is 1, for a
    dynamic batch above. `runs` and `warmup` are counted at batch 1; a larger batch takes as many images. Raises
    PlanError for a bundle of one bucket, TargetError for a batch beyond AT_A_TIME, ConfigError for a factor that is
    not positive or has no capacities to multiply, and what `bench` and `export` raise.

    >>> md.payoff("build/adaptive", "checkpoint", images="photos", batches=(1, 8))
    """
    check_here(device)
    amount, threads = Amount(runs, blocks, warmup, starts=1), checked_threads(threads)
    batches = checked_batches(batches)
    checkpoint, source = Path(checkpoint), Source(images, upscale, exif=exif)
    tell("checking the bundle and the checkpoint")
    bundle, manifest = open_linked(bundle)
    check_forms(bundle, manifest, checkpoint)
    pixels = draw(source, manifest.config, max(STREAM, *batches), shuffled=True)
    kinds: list[Batch] = list(dict.fromkeys(_exported(batch) for batch in batches))
    forms = forms_of(manifest.plan, manifest.config, topk_scale)
    exports = sum(not is_form(manifest, form, kind) for form in forms for kind in kinds)
    stages = Stages(tell, progress, total=exports + len(batches) * parts_of(len(forms), amount))
    conditions: dict[str, Any] = {}
    lanes: list[BundleLane] = []
    matches = []
    with temporary("payoff") as scratch:
        folders = export_forms(forms, bundle, manifest, checkpoint, kinds, scratch, stages.part)
        for batch in batches:
            subjects = _subjects(folders, batch, pixels, scratch)
            own = [BundleLane.of(subjects[form.name], f"{form.name}, batch {batch}") for form in forms]
            with ExitStack() as stack:
                processes = BundleProcesses(threads, stack, mixes=False)
                found = measure(processes, own, amount.for_batch(batch), stages)
                taken = [lane.measured() for lane in own]
            conditions = conditions or found  # after the exports, and before any load of our own
            lanes += own
            matches.append(Match(batch, tuple(map(Contender, forms, taken))))
    conditions |= {"threads": threads, **settings(source, amount), "parity": parities(lanes)}
    measured = tuple(contender.measured for match in matches for contender in match.contenders)
    warnings = [*([SYNTHETIC] if images is None else []), *warnings_about(conditions, measured)]
    return Payoff(
        device,
        measured,
        conditions,
        tuple(warnings),
        bundle=str(bundle),
        matches=tuple(matches),
        left_out=tuple(left_out(manifest.config)),
    )


def checked_batches(batches: Sequence[int]) -> tuple[int, ...]:
    """Sorted, without duplicates; TargetError for a batch that cannot be measured."""
    wrong = [batch for batch in batches if not 1 <= batch <= AT_A_TIME]
    if wrong or not batches:
        raise TargetError(
            f"batches: got {list(batches)}, expected numbers from 1 to {AT_A_TIME}, as a dynamic batch takes at "
            f"most {AT_A_TIME} images at a time"
        )
    return tuple(sorted(set(batches)))


def _exported(batch: int) -> Batch:
    """A graph for one image has no batch axis inside and is faster at batch 1."""
    return 1 if batch == 1 else "dynamic"


def _subjects(
    folders: Mapping[tuple[str, Batch], Path], batch: int, pixels: Pixels, scratch: Path
) -> dict[str, Subject]:
    """The bundle of each form at one batch size, all with the same pictures."""
    file = scratch / f"{batch}.npy"
    np.save(file, in_rounds(pixels, batch), allow_pickle=False)
    seen = len(pixels), digest(pixels)
    return {
        name: Subject(folder, open_manifest(folder), file, batch, *seen)
        for (name, kind), folder in folders.items()
        if kind == _exported(batch)
    }
