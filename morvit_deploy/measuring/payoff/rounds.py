"""Adaptive against top-k against dense, at several batch sizes, in one run. Exporting them loads torch."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.bundle.pixels import Pixels, digest
from morvit_deploy.bundle.session import AT_A_TIME
from morvit_deploy.errors import TargetError
from morvit_deploy.machine.this import checked_threads
from morvit_deploy.measuring.core.bench import settings
from morvit_deploy.measuring.core.blocks import (
    BLOCKS,
    WARMUP,
    Amount,
    Teller,
    fitting_runs,
    start_lanes,
    take_in_turn,
)
from morvit_deploy.measuring.core.conditions import read_conditions, warnings_about
from morvit_deploy.measuring.core.devices import check_here
from morvit_deploy.measuring.core.inputs import STREAM, Source, Subject, draw, in_rounds
from morvit_deploy.measuring.core.results import Measured
from morvit_deploy.measuring.payoff.forms import (
    Batch,
    check_contest,
    export_forms,
    forms_of,
    is_form,
    left_out,
)
from morvit_deploy.measuring.payoff.result import Contender, Contest, Match

BATCHES = (1, 8, 32)
SYNTHETIC = (
    "fed with synthetic pictures, which meet other buckets than yours would: the verdict is about them; "
    "give --images"
)


def contest(
    bundle: str | Path,
    checkpoint: str | Path,
    *,
    batches: Sequence[int] = BATCHES,
    device: str = "cpu",
    threads: int | None = None,
    images: str | Path | None = None,
    upscale: bool = False,
    runs: int | None = None,
    blocks: int = BLOCKS,
    warmup: int = WARMUP,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Contest:
    """Does the plan of `bundle` make it faster than fixed schedules of the same checkpoint, on the same pictures?

    The forms are exported to a temporary folder: for one image where the batch is 1, for a dynamic batch above.
    `runs` and `warmup` are counted at batch 1; a larger batch takes as many images. Raises PlanError for a bundle
    of one bucket, TargetError for a batch that is not run at once, and what `bench` and `export` raise.
    """
    check_here(device)
    amount, threads = Amount(runs, blocks, warmup, starts=1), checked_threads(threads)
    batches = checked_batches(batches)
    bundle, checkpoint = Path(bundle), Path(checkpoint)
    tell("checking the bundle and the checkpoint")
    manifest = open_manifest(bundle)
    check_contest(bundle, manifest, checkpoint)
    pixels = draw(Source(images, upscale), manifest.config, max(STREAM, *batches), shuffled=True)
    kinds: list[Batch] = list(dict.fromkeys(_exported(batch) for batch in batches))
    forms = forms_of(manifest.plan, manifest.config)
    exports = sum(not is_form(manifest, form, kind) for form in forms for kind in kinds)
    teller = Teller(tell, progress, total=exports + len(batches) * len(forms) * (1 + blocks))
    with tempfile.TemporaryDirectory(prefix="morvit-verdict-") as scratch:
        folders = export_forms(bundle, manifest, checkpoint, kinds, Path(scratch), teller.part)
        conditions = read_conditions()  # after the exports, which are work of our own
        matches = []
        for batch in batches:
            entered = {form.name: folders[form.name, _exported(batch)] for form in forms}
            taken = _measure(entered, pixels, batch, threads, amount, Path(scratch), teller)
            matches.append(Match(batch, tuple(map(Contender, forms, taken))))
    conditions |= {"threads": threads, **settings(images, amount)}
    measured = [contender.measured for match in matches for contender in match.contenders]
    warnings = [*([SYNTHETIC] if images is None else []), *warnings_about(conditions, measured)]
    return Contest(
        device, str(bundle), tuple(matches), tuple(left_out(manifest.config)), conditions, tuple(warnings)
    )


def checked_batches(batches: Sequence[int]) -> tuple[int, ...]:
    """Each once, rising; TargetError when one cannot be measured."""
    wrong = [batch for batch in batches if not 1 <= batch <= AT_A_TIME]
    if wrong or not batches:
        raise TargetError(
            f"batches: got {list(batches)}, expected numbers from 1 to {AT_A_TIME}, as a dynamic batch takes at "
            f"most {AT_A_TIME} images at a time"
        )
    return tuple(sorted(set(batches)))


def _exported(batch: int) -> Batch:
    """A graph for one image has no batch axis inside and is faster at it."""
    return 1 if batch == 1 else "dynamic"


def _measure(
    entered: dict[str, Path],
    pixels: Pixels,
    batch: int,
    threads: int,
    amount: Amount,
    scratch: Path,
    teller: Teller,
) -> list[Measured]:
    """All forms at one batch size, blocks in turn."""
    file = scratch / f"{batch}.npy"
    np.save(file, in_rounds(pixels, batch), allow_pickle=False)
    seen = len(pixels), digest(pixels)
    subjects = [
        (f"{name}, batch {batch}", Subject(folder, open_manifest(folder), file, batch, *seen))
        for name, folder in entered.items()
    ]
    with ExitStack() as stack:
        lanes = start_lanes(subjects, threads, 1, stack, teller)
        warmup = math.ceil(amount.warmup / batch)
        runs = math.ceil(amount.runs / batch) if amount.runs else fitting_runs(lanes, warmup, batch)
        take_in_turn(lanes, runs, warmup, amount.blocks, teller)
        return [lane.measured(lane.worker.memory_mib()) for lane in lanes]
