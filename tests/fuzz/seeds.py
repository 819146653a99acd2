"""The sound inputs: a checkpoint, a bundle of it, pictures, a plan, statistics, and files of other code."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from adaptive_plans import threshold_plan
from calibration_setup import save_pictures
from foreign_checkpoints import SAID, saved, vit
from source_outputs import outputs_of, written
from tiny_models import make_config, random_model

from morvit_deploy import calibrate_shard, export
from morvit_deploy.model.checkpoint import fingerprint, save_checkpoint
from morvit_deploy.sources.conversion import read_model
from morvit_deploy.sources.settings.given import Given

PICTURES = 6


def make_seeds(folder: Path, bundle: Path | None = None) -> Path:
    """Fill a folder; `bundle`, of the tiny checkpoint beside it, saves an export."""
    config = make_config()
    save_checkpoint(random_model(config), folder / "checkpoint")
    if bundle is None:
        export(folder / "checkpoint", folder / "bundle", with_depth=True)
    else:
        shutil.copytree(bundle, folder / "bundle")
    save_pictures(folder / "pictures", PICTURES)
    with (folder / "pictures" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((f"{i:03}.png", str(i)) for i in range(PICTURES))])
    plan = threshold_plan(config, (0.0, 0.0, 0.0), [(4, 4, 1), (8, 6, 2)], upto=(4, 8))
    plan = plan.model_copy(update={"checkpoint": fingerprint(folder / "checkpoint")})
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    for _ in range(config.num_steps + 1):  # a round each
        for part in ("1/2", "2/2"):
            calibrate_shard(folder / "checkpoint", folder / "pictures", folder / "statistics", part)
    source = saved(vit("aaa"), folder / "model.pth")
    written(folder / "reference.npz", **outputs_of(read_model(source, Given(**SAID)).model))
    return folder
