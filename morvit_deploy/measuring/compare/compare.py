"""Bundles and other models in one table, measured in turn in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random

from morvit_deploy.errors import MissingExtraError, MorvitError
from morvit_deploy.files import temporary
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.machine.this import checked_threads, versions
from morvit_deploy.measuring.browser.runtime import cache_folder
from morvit_deploy.measuring.compare.baselines.names import Baseline, find_baselines
from morvit_deploy.measuring.compare.baselines.published import of_baseline
from morvit_deploy.measuring.compare.candidates import Candidate, baseline_candidate, bundle_candidates
from morvit_deploy.measuring.compare.lanes import RowLane, Rows, openable
from morvit_deploy.measuring.compare.results.rows import Comparison, NotMeasured
from morvit_deploy.measuring.compare.throughput import BATCHES, check_batches, throughput
from morvit_deploy.measuring.compare.ways import check_ways, ways_of
from morvit_deploy.measuring.core.inputs import Source, folders_of
from morvit_deploy.measuring.core.request import settings
from morvit_deploy.timing.loop import BLOCKS, WARMUP, Amount, Stages, measure, parts_of
from morvit_deploy.timing.result import warnings_about

STARTS = 3
MIN_RUNS, BLOCK_MS = 3, 300.0  # many rows take turns; the slowest decides how many runs a block has
SEED = 0


@checks_keywords()
def compare(
    bundles: str | Path | Sequence[str | Path],
    *,
    baselines: Sequence[str | Path] = (),
    ways: Sequence[str] = (),
    checkpoint: str | Path | None = None,
    threads: int | None = None,
    images: str | Path | None = None,
    upscale: bool = False,
    exif: bool = False,
    runs: int | None = None,
    blocks: int = BLOCKS,
    warmup: int = WARMUP,
    starts: int = STARTS,
    batches: Sequence[int] = BATCHES,
    seed: int = SEED,
    cache: str | Path | None = None,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Comparison:
    """Measure bundles of target `onnx` and other models at batch 1 on this machine's CPU, block by block in turn.

    A baseline is a name of timm (which the extra `zoo` installs), NAME=WEIGHTS with a file of weights, a model of
    `examples/baselines`, a preset of `init`, an ONNX file, or "table2" for all of the paper's. Named ones have 1,000
    classes, random weights of `seed` unless a file is given, and are exported once to the folder `cache` (default:
    the user's cache).
    `ways` are further rows of the first bundle: "masked", "eager", "compile", "fp16", "int8", "w8" and "w4" of its
    `checkpoint`, and "openvino". int8 requires `images`.
    The order of the rows is another one in each block, drawn from `seed`. `images` are for the bundles; their number
    of tokens may depend on the picture. After the blocks, each row alone runs larger `batches` until they are no
    faster or memory is short; a file for one picture at a time is left at batch 1.

    A model that cannot be built, exported or run is in `left_out` of the result, with the reason. Raises ConfigError
    for a name that there is not, TargetError for bundles of several targets, and for bundles what `bench` raises.

    >>> result = md.compare("build/b16", baselines=["vit_base_patch16_224", "resnet50"], threads=2)
    >>> print(result.sentence)
    """
    checkpoint = None if checkpoint is None else Path(checkpoint)
    check_ways(ways, checkpoint)
    threads, batches = checked_threads(threads), check_batches(batches)
    amount = Amount(runs, blocks, warmup, starts, least=MIN_RUNS, block_ms=BLOCK_MS)
    folders, source = folders_of(bundles), Source(images, upscale, exif=exif)
    tell("looking for the models")
    wanted = find_baselines(baselines, _timm_names) if baselines else []
    stages = Stages(tell, progress)
    with temporary("compare") as scratch, ExitStack() as stack:
        own = bundle_candidates(folders, source, scratch)
        further = list(ways_of(own[0], ways, checkpoint, source, scratch, tell))
        place = cache_folder() / "baselines" if cache is None else Path(cache)
        further += _built(wanted, seed, place, scratch, tell, batches=max(batches) > 1)
        candidates = [*(one for one, _ in own), *(one for one in further if isinstance(one, Candidate))]
        left_out = [one for one in further if isinstance(one, NotMeasured)]
        stages.total = len(candidates) * (2 + parts_of(1, amount))
        good, refused, parities = openable(candidates, threads, stages)
        lanes = [RowLane(name=one.name, candidate=one) for one in good]
        conditions = measure(Rows(threads, stack), lanes, amount, stages, shuffle=Random(seed))
        measured = [(lane.candidate, lane.row()) for lane in lanes]
        stack.close()  # so that larger batches have the memory for themselves
        rows = tuple(
            replace(row, throughput=throughput(one, row, batches, threads, stages)) for one, row in measured
        )
    conditions |= {
        "threads": threads,
        **settings(source, amount),
        "parity": parities,
        "seed": seed,
        "batches": list(batches),
    }
    conditions["versions"] |= versions(("timm", "openvino"))
    remarks = tuple(f"{one.name}: {text}" for one, _ in measured for text in one.remarks)
    warnings = (*warnings_about(conditions, rows), *remarks)
    return Comparison("cpu", rows, conditions, warnings, left_out=(*left_out, *refused))


def _built(
    wanted: Sequence[Baseline],
    seed: int,
    place: Path,
    scratch: Path,
    tell: Callable[[str], None],
    *,
    batches: bool,
) -> list[Candidate | NotMeasured]:
    """A candidate for each baseline, or the reason why there is none."""
    found: list[Candidate | NotMeasured] = []
    for number, baseline in enumerate(wanted):
        tell(f"exporting {baseline.name}")
        try:
            found.append(baseline_candidate(baseline, seed, place, scratch, number, batches=batches))
        except MissingExtraError:
            raise
        except MorvitError as error:
            found.append(NotMeasured(baseline.name, str(error), of_baseline(baseline.name)))
    return found


def _timm_names() -> Sequence[str]:
    from morvit_deploy.measuring.compare.baselines.zoo import timm_names

    return timm_names()
