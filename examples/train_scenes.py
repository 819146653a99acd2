"""Train a tiny MoR-ViT on scenes: `python examples/train_scenes.py --selection batch --out DIR`.

With `--selection batch` the tokens of all pictures compete, as they do under static thresholds. `--selection image`
trains the sister with as many tokens for every picture, on the same budget. `--routing token_choice` chooses depths
up front. Needs the `train` extra (scikit-learn). Seeded, and resumable with --state. Writes a checkpoint and
training.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "passive"  # before torch: spinning threads crawl when others use the cores

import digits
import torch
from evaluate_scenes import evaluate, scaled
from optimise import initialise, train
from scene_objective import SceneRecipe, Student, scene_objective, settled_thresholds
from selection import OPEN
from train_digits import TOKEN_CHOICE, TRAINING, bar, trained_files, versions

from morvit_deploy.errors import MorvitError
from morvit_deploy.files import Place, check_free, new_folder
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.config import Config, parse_config
from morvit_deploy.model.presets import PRESETS
from morvit_deploy.model.reference import MoRViT

SHAPE: dict[str, Any] = {
    "embed_dim": 128,
    "num_heads": 4,
    "mlp_dim": 256,
    "sharing": "cycle",
    "router": {"hidden": [32], "activation": "sigmoid", "bias": True, "shared": False, "alpha": 1.0},
    "capacity": [14, 13, 12, 9],
}
SMALL_ROUTER: dict[str, Any] = {"router": TOKEN_CHOICE["router"] | {"hidden": [32]}}


def main() -> int:
    """Train, save, evaluate; the exit status."""
    args = parse_arguments()
    place: Place = {
        "marker": "config.json",
        "lists": trained_files,
        "force": args.force,
        "inputs": (args.state,),
    }
    check_free(args.out, **place)  # now, not after an hour
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)  # vanishing attention weights would slow the CPU down
    recipe = replace(SceneRecipe(), selection=args.selection, precision=args.precision)
    if args.steps:
        recipe = replace(recipe, steps=args.steps)
    source, test = digits.load_sources()
    model = MoRViT(make_config(args.routing))
    initialise(model)
    student = Student(model)
    with bar(recipe.steps) as tick:
        objective = scene_objective(student, source, recipe)
        trained = train(student, objective, recipe, args.seed, tick, args.state).eval().model
    trained = as_stored(trained)
    if args.routing == "expert_choice" and args.selection == "batch":
        trained = with_thresholds(trained, source, args.served, args.seed)
    report = {
        "routing": args.routing,
        "selection": args.selection if trained.config.capacity else None,
        **evaluate(trained, test, args.images),
        "served": args.served if trained.config.thresholds else None,
        "seed": args.seed,
        "threads": args.threads,
        "recipe": asdict(recipe),
        "versions": versions(),
    }
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    with new_folder(args.out, **place) as folder:
        save_checkpoint(trained.half(), folder, force=True)  # it is empty
        (folder / TRAINING).write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--force", action="store_true", help="replace a checkpoint in --out")
    parser.add_argument("--routing", choices=["expert_choice", "token_choice"], default="expert_choice")
    parser.add_argument("--selection", choices=["batch", "image"], default="batch", help="who competes")
    parser.add_argument("--state", type=Path, help="file to keep the run in, to go on after an interruption")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="training steps, to try things out (default: the recipe's)")
    parser.add_argument(
        "--served", type=float, default=1.1, help="factor of the training budget that the thresholds keep"
    )
    parser.add_argument("--images", type=int, default=5000, help="test pictures")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    return parser.parse_args()


def as_stored(model: MoRViT) -> MoRViT:
    """The model with the weights that a checkpoint in fp16 holds, in float32; in place."""
    return model.half().float()


def with_thresholds(model: MoRViT, source: digits.Source, factor: float, seed: int) -> MoRViT:
    """The model as one that owns running thresholds for `factor` times its training budget."""
    assert model.config.capacity is not None
    capacity = scaled(model.config, factor)
    thresholds = settled_thresholds(model, source, capacity, seed)
    own = {"capacity": capacity, "thresholds": [None if t == OPEN else t for t in thresholds]}
    served = MoRViT(parse_config(json.dumps(json.loads(model.config.to_json()) | own)))
    served.load_state_dict(model.state_dict())
    return served.eval()


def make_config(routing: str) -> Config:
    """The preset `morvit_tiny_digits`, narrower and without first and last."""
    own = TOKEN_CHOICE | SMALL_ROUTER if routing == "token_choice" else {}
    return parse_config(json.dumps(PRESETS["morvit_tiny_digits"] | SHAPE | own))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MorvitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
