"""MoR-ViT-B/16 against ViT-B/16 in ONNX Runtime on the CPU: `python benchmarks/cpu_latency.py -o cpu_latency.json`.

Exports five bundles of randomly initialised checkpoints, measures them in one call in blocks taken in turn, and
prints a Markdown table. Wants a quiet machine, about 2 GB of disk and a few minutes; latency does not depend on the
values of the weights. Exit status 1 when the unrolled MoR-ViT is less than BAR times as fast as the plain ViT.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import print_conditions, run, write_json
from rich.console import Console

from morvit_deploy.bundle.manifest import MANIFEST
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.model.choices import Variant
from morvit_deploy.report import Table, count, size, spread, three_digits

BAR = 5.0  # times as fast as the plain ViT-B/16
SUBJECTS: dict[str, tuple[str, Variant]] = {  # bundle -> preset, form
    "morvit_b16-unrolled": ("morvit_b16", "unrolled"),
    "morvit_b16-gather_scatter": ("morvit_b16", "gather_scatter"),
    "morvit_b16-masked": ("morvit_b16", "masked"),
    "vit_b16-plain": ("vit_b16", "masked"),  # nothing to mask: every token in every layer, nothing folded
    "vit_b16-unrolled": ("vit_b16", "unrolled"),
}
BASELINE = list(SUBJECTS).index("vit_b16-plain")


def main() -> int:
    """Export what is missing, measure, print; the exit status."""
    options = _options()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        folder = options.bundles or Path(scratch)
        for name, (preset, form) in SUBJECTS.items():
            if not (folder / name / MANIFEST).is_file():
                status.update(f"exporting {name}")
                _export(folder, name, preset, form)
        if options.export_only:
            return 0
        result = bench(
            [folder / name for name in SUBJECTS],
            threads=options.threads,
            runs=options.runs,
            blocks=options.blocks,
            starts=options.starts,
            tell=status.update,
        )
    print(table(result).markdown())
    print_conditions(result, console)
    write_json(options.out, _as_dict(result))
    return _judge(result)


def table(result: BenchResult) -> Table:
    """A row for each bundle; ratios are against the plain ViT-B/16, block by block."""
    rows = [_row(result, i, name) for i, name in enumerate(SUBJECTS)]
    columns = (
        "bundle",
        "median ms",
        "p90 ms",
        "blocks' medians",
        "× ViT-B/16",
        "over the blocks",
        "MACs",
        "GMAC/s",
        "files",
        "anonymous MiB",
        "peak MiB",
        "cold start ms",
        "load ms",
    )
    known = result.conditions
    caption = f"{known['blocks']} blocks of {known['runs_per_block']} runs each, batch 1, {known['threads']} threads"
    return Table("Latency in ONNX Runtime, fp32", columns, rows, tuple(range(1, len(columns))), caption)


def _row(result: BenchResult, i: int, name: str) -> tuple[str, ...]:
    one, ratio = result.measured[i], result.ratio(i, against=BASELINE)
    return (
        name,
        three_digits(one.latency_ms["p50"]),
        three_digits(one.latency_ms["p90"]),
        spread(one.block_medians_ms),
        f"{ratio.median:.2f}",
        spread(ratio.per_block),
        *_costs(one),
        three_digits(one.start_ms("cold_start_ms")),
        three_digits(one.start_ms("load_ms")),
    )


def _costs(one: MeasuredBundle) -> tuple[str, ...]:
    (macs,) = one.macs.values()
    memory = (f"{one.memory_mib.get(kind, float('nan')):.0f}" for kind in ("anonymous", "peak"))
    return (count(macs), three_digits(one.gmacs_per_s or 0), size(one.file_bytes), *memory)


def _export(folder: Path, name: str, preset: str, form: Variant) -> None:
    from morvit_deploy.exporters.api import export
    from morvit_deploy.model.checkpoint import init_model, save_checkpoint
    from morvit_deploy.model.presets import preset as find

    checkpoint = folder / "checkpoints" / preset
    if not checkpoint.exists():
        save_checkpoint(init_model(find(preset), seed=0), checkpoint)
    export(checkpoint, folder / name, form=form)


def _as_dict(result: BenchResult) -> dict[str, object]:
    against = [result.ratio(i, against=BASELINE).as_dict() for i in range(len(SUBJECTS))]
    return {**result.as_dict(), "ratios": against}


def _judge(result: BenchResult) -> int:
    ratio = result.ratio(0, against=BASELINE).median
    print(f"{next(iter(SUBJECTS))}: {ratio:.2f} times as fast as ViT-B/16; the bar is {BAR}")
    return 0 if ratio >= BAR else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="MoR-ViT-B/16 against ViT-B/16 in ONNX Runtime on the CPU.")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write, with every raw sample")
    parser.add_argument("--bundles", type=Path, help="folder to keep the bundles in, and to take them from")
    parser.add_argument("--export-only", action="store_true", help="fill --bundles and measure later")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10, help="runs in a block, at least 10")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--starts", type=int, default=3, help="new processes to time for each bundle")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
