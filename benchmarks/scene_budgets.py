"""Top-1 by MACs on scenes: thresholds with fitted buckets, against the cheapest top-k that loses as little.

    python benchmarks/scene_budgets.py -o scene_budgets.json --plot docs/scene-budgets.png

Buckets are fitted to pictures of training digits; all figures are of pictures of test digits. An operating point
holds if top-1 is at most 0.5 points below that of the same adaptive model with every token in every step. Needs the
`train` extra. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import digits
import numpy as np
import pictures
import scenes
import torch
from common import run, write_json
from evaluate_scenes import Answers, answers, counts_of, lost, mean_macs, own_selection, scaled, share
from rich.console import Console
from rich.progress import track
from scene_budgets_plot import OTHER, draw
from scene_objective import settled_thresholds
from selection import ByThreshold, PerImage, everything

import morvit_deploy as md
from morvit_deploy.files import any_file, write_bytes
from morvit_deploy.model.answers.accuracy import Z
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import dense_macs, schedule_macs, stem_macs
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.reference import MoRViT

ALLOWED = 0.5  # points of top-1 below every token in every step
BAR = 1.4  # times fewer MACs than the cheapest top-k that holds
FACTORS = (0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.7, 1.8, 1.9, 2.0, 2.2, 2.5)  # of the capacity
FITTED, FIT_SEED = 2000, 11  # pictures that buckets are fitted to


@dataclass(frozen=True)
class Row:
    """One model at one budget."""

    model: str
    form: str  # every token, thresholds, depths, or top-k
    budget: float | None  # of the checkpoint's capacity
    top1: float
    plus_minus: float  # points, 95 %
    lost: float | None  # points against the first model with every token in every step
    lost_plus_minus: float | None
    macs: float  # mean of an image, with the fitted buckets
    unpadded: float  # if each picture had a bucket of its own
    overflow: float  # share of pictures that run again in `full`


def main() -> int:
    given = arguments()
    console = Console(stderr=True)
    torch.set_num_threads(given.threads)
    source, test = digits.load_sources()
    names = [given.adaptive, *given.others]
    models = {folder.name: md.load_checkpoint(folder) for folder in names}
    adaptive = models[given.adaptive.name]
    every = answers(adaptive, test, everything, given.images)
    full = dense_macs(adaptive.config)
    rows = [row(given.adaptive.name, "every token", None, every, every, (full, full, 0.0))]
    for folder in names:
        model = models[folder.name]
        if model.config.thresholds is not None or model.config.capacity is None:
            console.print(f"{folder.name}: fitting buckets to {FITTED:,} pictures", markup=False)
            plan = fitted(folder, source, given.buckets)
            own = answers(model, test, own_selection(model.config), given.images)
            form = "thresholds" if model.config.thresholds else "depths"
            rows.append(row(folder.name, form, None, own, every, priced(model.config, plan, own)))
        if model.config.thresholds is not None:
            rows += [
                threshold_row(folder.name, model, factor, every, source, test) for factor in given.thresholds
            ]
        if model.config.capacity is not None:
            rows += [
                topk_row(folder.name, model, factor, every, test, given.images)
                for factor in track(FACTORS, f"{folder.name}, top-k", console=console)
            ]
    print(table(rows))
    best, fixed = cheapest(rows, ("thresholds", "depths")), cheapest(rows, ("top-k",))
    ratio = fixed.macs / best.macs if best and fixed else None
    print(conclusion(best, fixed, ratio))
    write_json(given.out, {"images": given.images, "rows": [asdict(r) for r in rows], "ratio": ratio})
    if given.plot:
        write_bytes(given.plot, draw([asdict(r) for r in rows], ALLOWED), replaces=any_file)
    return int(ratio is None or ratio < BAR)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adaptive", type=Path, default=EXAMPLES / "scenes-thresholds", metavar="CHECKPOINT")
    parser.add_argument(
        "--others", type=Path, nargs="*", default=[EXAMPLES / "scenes-topk"], metavar="CHECKPOINT"
    )
    parser.add_argument(
        "--thresholds", type=float, nargs="*", default=[0.6, 0.8, 0.9, 1.2, 1.4], metavar="FACTOR",
        help="budgets of other thresholds, times the capacity",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=5000, help="test pictures")
    parser.add_argument("--buckets", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, help="JSON file with all figures")
    parser.add_argument("--plot", type=Path, help="PNG file with both curves")
    return parser.parse_args()


def fitted(folder: Path, source: digits.Source, buckets: int) -> Plan:
    """The plan that `calibrate` fits to pictures of training digits."""
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary) / "photos"
        pictures.write([scenes.draw(source, FITTED, torch.Generator().manual_seed(FIT_SEED))], photos)
        return md.calibrate(folder, photos, buckets=buckets).plan


def priced(config: Config, plan: Plan, own: Answers) -> tuple[float, float, float]:
    """Mean MACs of an image in the plan's buckets and without padding, and the share that overflows.

    An image that overflows runs again in `full`, but for the stem.
    """
    counts = counts_of(own.depth, config.num_steps).numpy()
    bucket, overflow = plan.dispatched(counts)
    macs = np.array([one.macs for one in plan.buckets], dtype=float)
    again = macs[-1] - stem_macs(config, plan.lead)
    unpadded = [schedule_macs(config, tuple(row)) for row in counts.tolist()]
    return (
        float(macs[bucket].mean() + again * overflow.mean()),
        float(np.mean(unpadded)),
        float(overflow.mean()),
    )


def topk_row(
    name: str, model: MoRViT, factor: float, every: Answers, test: digits.Source, images: int
) -> Row:
    capacity = scaled(model.config, factor)
    macs = float(schedule_macs(model.config, tuple(capacity)))
    return row(
        name, "top-k", factor, answers(model, test, PerImage(capacity), images), every, (macs, macs, 0.0)
    )


def threshold_row(
    name: str, model: MoRViT, factor: float, every: Answers, source: digits.Source, test: digits.Source
) -> Row:
    """Thresholds for a multiple of the capacity, settled as in training; no buckets are fitted to them."""
    thresholds = settled_thresholds(model, source, scaled(model.config, factor), seed=0)
    own = answers(model, test, ByThreshold(thresholds), len(every.right))
    macs = float(mean_macs(model.config, own.depth))
    return row(name, OTHER, factor, own, every, (macs, macs, 0.0))


def row(
    name: str, form: str, budget: float | None, own: Answers, every: Answers, cost: tuple[float, float, float]
) -> Row:
    error = Z * own.right.double().std().item() / len(own.right) ** 0.5
    behind = lost(own, every)
    return Row(
        name,
        form,
        budget,
        share(own.right),
        round(100 * error, 2),
        behind["points"],
        behind["plus_minus"],
        *cost,
    )


def cheapest(rows: Sequence[Row], forms: Sequence[str]) -> Row | None:
    """The cheapest of these forms that holds."""
    holding = [r for r in rows if r.form in forms and r.lost is not None and r.lost <= ALLOWED]
    return min(holding, key=lambda r: r.macs, default=None)


def conclusion(best: Row | None, fixed: Row | None, ratio: float | None) -> str:
    if best is None or fixed is None or ratio is None:
        missing = "adaptive point" if best is None else "top-k point"
        return f"\nno {missing} is within {ALLOWED} points of every token in every step"
    return (
        f"\n{best.model} with fitted buckets: {best.macs / 1e6:.2f} M MACs at {best.top1:.2%}; the cheapest top-k "
        f"that holds, {fixed.model} at {fixed.budget} ×: {fixed.macs / 1e6:.2f} M MACs at {fixed.top1:.2%}: "
        f"{ratio:.2f} × (bar {BAR} ×)"
    )


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| model | form | budget | top-1 | points lost | M MACs | without padding | overflow |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        budget = "" if r.budget is None else f"{r.budget:g} ×"
        lines.append(
            f"| `{r.model}` | {r.form} | {budget} | {r.top1:.2%} ± {r.plus_minus} | {r.lost} ± {r.lost_plus_minus} "
            f"| {r.macs / 1e6:.2f} | {r.unpadded / 1e6:.2f} | {r.overflow:.2%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
