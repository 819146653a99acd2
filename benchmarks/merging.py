"""Token merging on trained weights: `python benchmarks/merging.py --work build/merging -o merging.json`.

Trains a plain ViT of six layers on cluttered digits (about 20 minutes on one core, kept in --work), finds its merges
within several budgets on 400 pictures, and counts what they do to 1,000 pictures of other digits: top-1, and the
share that keep their class. The schedules found stand beside as many merges at every layer. Needs the `train` extra.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "passive"  # before torch: spinning threads crawl when others use the cores
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import digits
import torch
from common import run, write_json
from losses import LABEL_SMOOTHING
from optimise import Recipe, initialise, normalise, train
from rich.console import Console
from torch import Generator, Tensor
from torch.nn import functional as F

from morvit_deploy.calibration.merging.points import MergePoint
from morvit_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from morvit_deploy.model.config import parse_config
from morvit_deploy.model.merges.tokens import merge_tokens
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.presets import PRESETS
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.planning.merges import calibrate_merges
from morvit_deploy.report import Table, count, share

LAYERS, STEPS, BATCH = 6, 2400, 40
BUDGETS = (0.85, 0.7, 0.6, 0.5)  # of the unmerged MACs
CALIBRATION, TESTED = 400, 1000
SEED_OF_TEST = 12
CHUNK = 100


@dataclass(frozen=True)
class Row:
    """What a schedule does on pictures that the search did not see."""

    budget: float
    kind: str
    merges: tuple[int, ...]
    macs: int
    top1: float
    same_class: float


def main() -> int:
    """Train what is missing, search, count, print; the exit status."""
    options = _options()
    console = Console(stderr=True)
    torch.set_num_threads(options.threads)
    checkpoint = _trained(options.work / "plain", console)
    images, labels = _tested()
    plain = load_checkpoint(checkpoint)
    unmerged = _classes(plain, images)
    rows = []
    for budget in BUDGETS:
        console.print(f"searching merges within {budget:g} ×")
        found = calibrate_merges(
            checkpoint, _pictures(options.work / "first"), f"{budget}x", limit=CALIBRATION
        )
        for point in (found.chosen, _even(found.points, found.budget)):
            rows.append(_row(plain, point, budget, images, labels, unmerged))
    own = own_plan(plain.config).buckets[0].macs
    top1 = (unmerged == labels).double().mean().item()
    print(_table(rows, own, top1).markdown())
    write_json(
        options.out, {"unmerged_macs": own, "unmerged_top1": top1, "rows": [asdict(row) for row in rows]}
    )
    return 0


def _trained(folder: Path, console: Console) -> Path:
    if folder.exists():
        return folder
    plain = {
        **PRESETS["morvit_tiny_digits"], "sharing": "none", "cycle_depth": LAYERS, "num_recursions": 1,
        "routing": "none", "router": None, "gate": "hard", "capacity": None,
    }  # fmt: skip  # two lines read better than eight
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    model, recipe = MoRViT(parse_config(json.dumps(plain))), replace(Recipe(), steps=STEPS, batch=BATCH)
    initialise(model)
    source, _ = digits.load_sources()

    def loss(done: float, generator: Generator) -> Tensor:
        picks = digits.random_picks(source, recipe.batch, generator)
        batch = digits.draw(source, picks, generator, recipe.elastic)
        return F.cross_entropy(
            model(normalise(model, batch.images)).logits, batch.labels, label_smoothing=LABEL_SMOOTHING
        )

    with console.status("training") as status:
        trained = train(
            model, loss, recipe, 0, lambda text, step: status.update(f"step {step} of {STEPS}, {text}")
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(trained.eval(), folder)
    return folder


def _pictures(folder: Path) -> Path:
    """A folder of pictures to search with."""
    if not folder.exists():
        import pictures

        source, _ = digits.load_sources()
        picks = pictures.even_picks(source.labels, CALIBRATION)
        batches = [
            digits.draw(source, part, torch.Generator().manual_seed(i))
            for i, part in enumerate(picks.split(CHUNK))
        ]
        pictures.write(batches, folder)
    return folder


def _tested() -> tuple[Tensor, Tensor]:
    """Pictures (TESTED, 3, h, w) in [0, 1] of digits that training never saw, and their labels."""
    _, source = digits.load_sources()
    generator = torch.Generator().manual_seed(SEED_OF_TEST)
    batch = digits.draw(source, digits.random_picks(source, TESTED, generator), generator)
    return batch.images, batch.labels


@torch.no_grad()
def _classes(model: MoRViT, images: Tensor) -> Tensor:
    return torch.cat([model(normalise(model, part)).logits.argmax(dim=1) for part in images.split(CHUNK)])


def _even(points: Iterable[MergePoint], macs: float) -> MergePoint:
    """As many merges at every layer, as the published method has it, within MACs."""
    return max((p for p in points if p.kind == "even" and p.macs <= macs), key=lambda point: point.macs)


def _row(
    plain: MoRViT, point: MergePoint, budget: float, images: Tensor, labels: Tensor, unmerged: Tensor
) -> Row:
    merged = merge_tokens(plain, point.schedule.merges, proportional_attention=point.schedule.proportional)
    classes = _classes(merged, images)
    top1, same = ((classes == wanted).double().mean().item() for wanted in (labels, unmerged))
    return Row(budget, point.kind, point.schedule.merges, point.macs, top1, same)


def _table(rows: list[Row], unmerged: int, top1: float) -> Table:
    lines = [
        (
            f"{row.budget:g} ×", row.kind, ", ".join(map(str, row.merges)), count(row.macs),
            f"{unmerged / row.macs:.2f} ×", share(row.top1), share(row.same_class),
        )
        for row in rows
    ]  # fmt: skip  # a table
    columns = ("budget", "schedule", "merges at each layer", "MACs", "fewer", "top-1", "same class")
    caption = f"{TESTED:,} pictures of digits that neither training nor the search saw; unmerged: top-1 {share(top1)}"
    return Table("Token merging on trained weights", columns, lines, (3, 4, 5, 6), caption)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Token merging on a plain ViT that was trained on digits.")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder to keep the checkpoint and pictures in"
    )
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
