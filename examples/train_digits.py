"""Train a tiny MoR-ViT on cluttered digits: `python examples/train_digits.py --routing expert_choice --out DIR`.

Needs the `train` extra (scikit-learn). Writes a checkpoint and training.json. Seeded: the same seed, precision and
number of threads give the same weights. Exit status 1 when the trained routing is degenerate.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "passive"  # before torch: spinning threads crawl when others use the cores

import digits
import torch
from evaluate import evaluate
from optimise import Recipe, digits_objective, initialise, train
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from morvit_deploy.errors import MorvitError
from morvit_deploy.files import Place, check_free, new_folder
from morvit_deploy.model.checkpoint import checkpoint_files, save_checkpoint
from morvit_deploy.model.config import Config, parse_config
from morvit_deploy.model.presets import PRESETS
from morvit_deploy.model.reference import MoRViT

TRAINING = "training.json"  # how the checkpoint was trained, and how well
EXPERT_CHOICE: dict[str, Any] = {}  # the preset as it is
TOKEN_CHOICE: dict[str, Any] = {
    "routing": "token_choice",
    "router": {"hidden": [128], "activation": "sigmoid", "bias": True, "shared": True, "alpha": 1.0},
    "gate": "hard",
    "attention_scope": "all",
    "capacity": None,
}


def main() -> int:
    """Train, save, evaluate; the exit status."""
    args = parse_arguments()
    place: Place = {"marker": "config.json", "lists": trained_files, "force": args.force, "inputs": ()}
    check_free(args.out, **place)  # now, not after twenty minutes
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)  # vanishing attention weights would slow the CPU down
    recipe = replace(Recipe(), precision=args.precision, steps=args.steps or Recipe.steps)
    model, minutes = timed_training(make_config(args.routing), recipe, args.seed)
    report = {
        "routing": args.routing,
        **evaluate(model),
        "minutes": round(minutes, 1),
        "seed": args.seed,
        "threads": args.threads,
        "recipe": asdict(recipe),
        "versions": versions(),
    }
    text = json.dumps(report, indent=2) + "\n"
    with new_folder(args.out, **place) as folder:
        save_checkpoint(model, folder, force=True)  # it is empty
        (folder / TRAINING).write_text(text, encoding="utf-8")
    print(text, end="")
    if report["degenerate_routing"]:
        print("routing is degenerate: depth does not tell the digit from the background", file=sys.stderr)
    return int(report["degenerate_routing"])


def trained_files(folder: Path, config: dict[str, Any]) -> list[str]:
    """Names of the files beside `config.json`."""
    return [*checkpoint_files(folder, config), TRAINING]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routing", choices=["expert_choice", "token_choice"], default="expert_choice")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--force", action="store_true", help="replace an existing checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="training steps, to try things out (default: the recipe's)")
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="bfloat16 is 1.6 times faster on CPUs with AMX, and slow on others",
    )
    return parser.parse_args()


def make_config(routing: str) -> Config:
    """The preset `morvit_tiny_digits`, or its token_choice sister."""
    own = TOKEN_CHOICE if routing == "token_choice" else EXPERT_CHOICE
    return parse_config(json.dumps(PRESETS["morvit_tiny_digits"] | own))


def timed_training(config: Config, recipe: Recipe, seed: int) -> tuple[MoRViT, float]:
    """A trained model and the minutes it took."""
    source, _ = digits.load_sources()
    model = MoRViT(config)
    initialise(model)
    start = time.monotonic()
    with bar(recipe.steps) as tick:
        trained = train(model, digits_objective(model, source, recipe), recipe, seed, tick)
    return trained.eval(), (time.monotonic() - start) / 60


@contextmanager
def bar(steps: int) -> Iterator[Callable[[str, int], None]]:
    """A progress bar on stderr; the function that it yields takes a message and the number of steps done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=steps)
        yield lambda text, done: progress.update(task, completed=done, description=text)


def versions() -> dict[str, str]:
    import numpy
    import sklearn

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MorvitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
