"""Does adaptive routing pay on the clock? The scenes model at several widths: `python benchmarks/scene_widths.py`.

A width of k times the trained one holds each channel k times: the same function and the same routing with k² times
the MACs in every product. So the routing of a trained model is measured at the sizes of ViT-Ti, ViT-S and ViT-B.
Adaptive routing by the buckets of --plan, against the cheapest top-k of the same accuracy (`scene_budgets.py`), as
`bench --verdict` measures them, one image at a time. Wants a quiet machine; about three minutes a width.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import run, write_json
from rich.console import Console
from torch import Tensor

import morvit_deploy as md
from morvit_deploy.measuring.payoff.views import match_table
from morvit_deploy.model.checkpoint import build_model, fingerprint
from morvit_deploy.model.config import Config, parse_config
from morvit_deploy.model.plan import Plan, bucket_macs, load_plan
from morvit_deploy.model.reference import MoRViT

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TOPK_SCALE = 1.9  # of the cheapest top-k within half a point of every token in every step
SAME = 1e-4  # of logits: weights divided by the factor are rounded to float32


def main() -> int:
    given = arguments()
    console = Console(stderr=True)
    model = md.load_checkpoint(EXAMPLES / "scenes-thresholds")
    found: list[dict[str, Any]] = []
    for factor in given.factors:
        wide = widened(model, factor)
        check_same(model, wide)
        width = wide.config.embed_dim
        console.print(f"width {width}", markup=False)
        with tempfile.TemporaryDirectory() as temporary:
            payoff = measured(wide, load_plan(given.plan, model.config), Path(temporary), given)
        print(f"\nwidth {width}\n\n{match_table(payoff.matches[0]).markdown()}", flush=True)
        for warning in payoff.warnings:
            console.print(f"warning: {warning}", markup=False)
        found.append({"width": width, **payoff.as_dict()})
    write_json(given.out, {"widths": found})
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, required=True, help="of examples/scenes-thresholds")
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, help="JSON file with all figures")
    return parser.parse_args()


def measured(model: MoRViT, plan: Plan, scratch: Path, given: argparse.Namespace) -> Any:
    """The payoff of the plan's buckets at this width."""
    checkpoint, photos = scratch / "checkpoint", EXAMPLES / "scenes-test"
    md.save_checkpoint(model, checkpoint)
    (scratch / "plan.json").write_text(fitted(plan, model.config, checkpoint).to_json(), encoding="utf-8")
    md.export(checkpoint, scratch / "bundle", plan=scratch / "plan.json", images=photos)
    return md.payoff(
        scratch / "bundle", checkpoint, images=photos, batches=given.batches, topk_scale=TOPK_SCALE,
        threads=given.threads, blocks=given.blocks,
    )  # fmt: skip


def fitted(plan: Plan, config: Config, checkpoint: Path) -> Plan:
    """The same buckets with the MACs of this width."""
    buckets = [
        bucket.model_copy(update={"macs": bucket_macs(config, bucket.capacity, plan.thresholds)})
        for bucket in plan.buckets
    ]
    return plan.model_copy(update={"buckets": tuple(buckets), "checkpoint": fingerprint(checkpoint)})


def widened(model: MoRViT, factor: int) -> MoRViT:
    """The same function with each channel, head and hidden unit `factor` times."""
    config = model.config
    wide = {
        "embed_dim": config.embed_dim * factor,
        "num_heads": config.num_heads * factor,
        "mlp_dim": config.mlp_dim * factor,
    }
    own = parse_config(json.dumps(json.loads(config.to_json()) | wide))
    shapes = {name: tuple(t.shape) for name, t in MoRViT(own).state_dict().items()}
    tensors = {name: _repeated(name, t, shapes[name]) for name, t in model.state_dict().items()}
    return build_model(own, tensors, Path("widened"))


def _repeated(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Repeat along each axis that grows; weights by their inputs' number, so that sums stay."""
    if name.endswith(("qkv.weight", "qkv.bias")):  # queries, keys and values apart
        parts = [_repeated("", part, (shape[0] // 3, *shape[1:])) for part in tensor.chunk(3)]
        return torch.cat(parts)
    times = [wide // own for own, wide in zip(tensor.shape, shape, strict=True)]
    inputs = times[1] if tensor.ndim == 2 else 1
    return (tensor.repeat(times) / inputs).contiguous()


def check_same(model: MoRViT, wide: MoRViT) -> None:
    """SystemExit unless both answer alike and route alike."""
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    own, other = model.double()(images.double()), wide.double()(images.double())
    model.float(), wide.float()
    if (own.logits - other.logits).abs().max() > SAME or not torch.equal(own.depth, other.depth):
        raise SystemExit("the wide model is another function")


if __name__ == "__main__":
    run(main)
