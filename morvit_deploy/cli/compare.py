"""`morvit-deploy compare`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, note, warn, working
from morvit_deploy.cli.shared.derived import Arg, Group
from morvit_deploy.cli.shared.groups import OUTPUT, Exif, Force, Json, Threads, Upscale
from morvit_deploy.cli.shared.pages import check_page, with_command, with_depths, write_page
from morvit_deploy.cli.shared.places import bundle_folder, checkpoint_path
from morvit_deploy.cli.shared.sources import numbers
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import LARGEST_SEED, Help
from morvit_deploy.files import check_files, no_file, of_format, write_text

if TYPE_CHECKING:
    from morvit_deploy.measuring.compare.formats import Formats
    from morvit_deploy.measuring.compare.results.rows import Comparison

IS_RESULT = of_format("morvit-compare/")
FORMATS = "All formats of one checkpoint"
DEFAULT = "onnx"  # target


@dataclass(frozen=True)
class Others(Group):
    """What stands beside the bundles."""

    panel = "What to compare with"
    baselines: Annotated[
        tuple[str, ...],
        Help(
            "table2 or table4 (the models of the paper's Table 2, its ablation), names of timm, NAME=WEIGHTS, ats, "
            "tokenlearner, sparseformer, tct, or .onnx files, with commas; may be repeated. Named models get random "
            "weights.",
            "NAMES",
        ),
    ] = ()
    with_: Annotated[
        tuple[str, ...],
        Help(
            "Further rows of the first bundle: masked (as training code would export it), eager and compile "
            "(PyTorch), fp16, int8 (with --images), w8 and w4, each of --checkpoint, and openvino; with commas, may "
            "be repeated.",
            "WAYS",
        ),
    ] = ()
    checkpoint: Annotated[
        Path | None,
        Help("For --with: the checkpoint that the first bundle was made from.", "PATH"),
    ] = None
    seed: Annotated[
        int,
        Help(
            "Of random weights, and of the order in which the rows take turns.",
            least=0,
            most=LARGEST_SEED,
            show_default=True,
        ),
    ] = 0
    cache: Annotated[
        Path | None,
        Help("Folder that keeps exported baselines for the next run (default: your cache).", "DIR"),
    ] = None
    targets: Annotated[
        tuple[str, ...],
        Help(
            "Instead of bundles: give a checkpoint, and get all its formats in one table: onnx,coreml,trt,coreai.",
            "NAMES",
            panel=FORMATS,
        ),
    ] = ()
    precisions: Annotated[
        tuple[str, ...],
        Help("The same, in these precisions, with commas (default: fp32).", "NAMES", panel=FORMATS),
    ] = ()

    def check(self) -> None:
        """ConfigError for options of both tables."""
        if (self.targets or self.precisions) and (self.baselines or self.with_ or self.checkpoint):
            raise ConfigError(
                "--targets and --precisions compare the formats of one checkpoint, --baselines and --with other "
                "models with bundles; run one after the other"
            )


@dataclass(frozen=True)
class Images(Group):
    """What the bundles are fed."""

    panel = "Images"
    images: Annotated[
        Path | None, Help("Folder of images for the bundles (default: synthetic pictures).", "DIR")
    ] = None
    upscale: Upscale = False
    exif: Exif = False


@dataclass(frozen=True)
class Timing(Group):
    """How long is measured."""

    panel = "How long"
    runs: Annotated[int | None, Help("Runs per block (default: 0.3 s of the slowest row).", least=3)] = None
    blocks: Annotated[int | None, Help("Blocks per row, in turn (default: 10).", least=1)] = None
    warmup: Annotated[
        int | None, Help("Runs before each block that are not counted (default: 3).", least=0)
    ] = None
    starts: Annotated[int | None, Help("New processes for the cold start (default: 3).", least=1)] = None
    threads: Threads = None
    batches: Annotated[
        str | None,
        Help(
            "Batch sizes whose images/s are also measured, in order, until they gain nothing; 1 measures no other "
            "(default: 1,2,4,8,16,32).",
            "N,N,…",
        ),
    ] = None


@dataclass(frozen=True)
class Written(Group):
    """How the result is shown, and the files that keep it."""

    panel = OUTPUT
    out: Annotated[Path | None, Help("JSON file to write, with every raw sample.", "FILE", short="-o")] = None
    report: Annotated[Path | None, Help("Page to write: .html or .md.", "FILE")] = None
    force: Force = False
    json: Json = False


@command(
    "compare",
    "morvit-deploy compare build/b16 --baselines table2 -o table2.json --report table2.html",
    "morvit-deploy compare build/b16 build/b16-int8 --baselines vit_base_patch16_224,other.onnx",
    "morvit-deploy compare build/b16 --with masked,eager --checkpoint my-model",
    "morvit-deploy compare my-model --targets onnx,coreml,trt --precisions fp32,fp16,int8 --images photos",
)
def compare(
    bundles: Annotated[
        tuple[Path, ...],
        Arg(
            "Bundles of target onnx (default: the newest under build/), or with --targets a checkpoint.",
            "BUNDLE...",
        ),
    ] = (),
    *,
    others: Others,
    pictures: Images,
    timing: Timing,
    output: Written,
) -> None:
    """Measure bundles and other models in one table, at batch 1 on this CPU, block by block in turn.

    Other models are exported by torch.onnx.export as they are. Published figures have columns of their own. A model
    that cannot be exported or run is listed with the reason, and the others are measured.
    """
    from morvit_deploy.cli.shared.stored import KEY, stored

    others.check()
    folders = [*bundles] or [bundle_folder(None)]
    inputs = (*folders, others.checkpoint, pictures.images)
    if output.out is not None:
        check_files([output.out], force=output.force, replaces=IS_RESULT, inputs=inputs)
    if output.report is not None:
        check_page(output.report, force=output.force, inputs=inputs)
    measure = _formats if others.targets or others.precisions else _measured
    result = measure(folders, others, pictures, timing)
    warn(result.warnings)
    report = with_command(result.report(), result.warnings)
    if output.out is not None:
        found = result.as_dict() | {KEY: stored(report)}
        text = json.dumps(found, indent=1, allow_nan=False) + "\n"
        write_text(output.out, text, replaces=IS_RESULT if output.force else no_file)
    if output.report is not None:
        fed = None if others.targets or others.precisions else pictures.images  # there, of a checkpoint
        how = {"upscale": pictures.upscale, "exif": pictures.exif}
        drawn = with_depths(result.report(), folders[0], fed, **how)
        write_page(output.report, with_command(drawn, result.warnings), force=output.force)
    if pictures.images is None:
        note("no --images given; measured on synthetic pictures")
    emit(result.report(), result.as_dict(), output.json)


def _formats(checkpoints: list[Path], others: Others, pictures: Images, timing: Timing) -> Formats:
    """One checkpoint in every target and precision."""
    if len(checkpoints) > 1:
        raise ConfigError(
            f"--targets and --precisions export one checkpoint; got {len(checkpoints)} folders, expected one"
        )
    if timing.batches is not None:
        raise ConfigError(
            "--batches is for bundles and baselines; formats are timed at batch 1, leave it out"
        )
    from morvit_deploy.measuring.compare.formats import compare_formats

    given = {name: value for name, value in asdict(timing).items() if value is not None}
    with working("exporting") as (tell, _):
        return compare_formats(
            checkpoint_path(checkpoints[0]), targets=_split(others.targets) or [DEFAULT],
            precisions=_split(others.precisions) or ["fp32"], images=pictures.images, upscale=pictures.upscale,
            exif=pictures.exif, timing=given, tell=tell,
        )  # fmt: skip  # three lines read better than nine


def _measured(folders: list[Path], others: Others, pictures: Images, timing: Timing) -> Comparison:
    from morvit_deploy.measuring.compare.compare import STARTS
    from morvit_deploy.measuring.compare.compare import compare as measure
    from morvit_deploy.measuring.compare.throughput import BATCHES
    from morvit_deploy.timing.loop import BLOCKS, WARMUP

    sizes = None if timing.batches is None else numbers("--batches", timing.batches, "1,8,32")
    batches = BATCHES if sizes is None else sizes
    with working("checking the bundles") as (tell, progress):
        return measure(
            folders, baselines=_split(others.baselines), ways=_split(others.with_), checkpoint=others.checkpoint,
            threads=timing.threads, images=pictures.images, upscale=pictures.upscale, exif=pictures.exif,
            runs=timing.runs, blocks=timing.blocks or BLOCKS, starts=timing.starts or STARTS,
            warmup=WARMUP if timing.warmup is None else timing.warmup, seed=others.seed, cache=others.cache,
            batches=batches, tell=tell, progress=progress,
        )  # fmt: skip  # five lines read better than fourteen


def _split(words: Iterable[str]) -> list[str]:
    """Names with commas between them, from options that may be repeated."""
    return [name for word in words for name in word.split(",") if name]
