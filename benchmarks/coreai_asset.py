"""Bars of target coreai, on any machine: `python benchmarks/coreai_asset.py size|opinion -o out.json`.

`size`: a stem and five buckets of MoR-ViT-B/16 in fp16 in one asset, its bytes against those of the unique fp16
parameters. Weights are random; the plan has made-up thresholds and a ladder from a tenth to all of the tokens.

`opinion`: the same static graphs of a trained digits model as a Core ML package, run by this project's interpreter,
and as a Core AI asset, run by Apple's runtime: the difference between the two, and of each from the float64
reference. Apple's runtime takes about a second for an image in fp16 on Linux.

Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from common import ladder, run
from rich.console import Console

from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.coreai.convert import Program
from morvit_deploy.exporters.coreai.export import halve
from morvit_deploy.exporters.coreai.names import ASSET
from morvit_deploy.exporters.functions.tracing import functions
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.files import any_file, write_text
from morvit_deploy.graph.style.styles import Options, style_of
from morvit_deploy.graph.unroll import unroll_plan
from morvit_deploy.model.checkpoint import init_model, load_checkpoint
from morvit_deploy.model.choices import Select
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.presets import preset
from morvit_deploy.report import Table, size
from morvit_deploy.verifying.comparison import exactly_normalised

ASSET_BAR = 1.05  # × the bytes of the unique fp16 parameters
FP32_BAR = 1e-4  # × max(1, max |logit|), Apple's runtime against the float64 reference
EXAMPLES = Path(__file__).parents[1] / "examples"
IMAGES = {"fp32": 32, "fp16": 4}

Measured = tuple[Table, dict[str, Any], list[str]]


def main() -> int:
    """Measure, print; the exit status."""
    options = _options()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        measure = _size if options.what == "size" else _opinion
        table, data, missed = measure(Path(scratch), status.update)
    print(table.markdown())
    for line in missed:
        console.print(f"missed: {line}", markup=False)
    if options.out:
        write_text(options.out, json.dumps(data, indent=1, allow_nan=False) + "\n", replaces=any_file)
    return 1 if missed else 0


def _size(folder: Path, tell: Any) -> Measured:
    model = init_model(preset("morvit_b16"), seed=0)
    unique = 2 * sum(parameter.numel() for parameter in model.parameters())
    plan = _ladder(model.config)
    graphs = unroll_plan(model, plan, Options("uint8", style=style_of("bsd", "topk")))
    parts = list(functions(graphs, plan))
    halve(graphs)
    started = time.perf_counter()
    program = Program("fp16", pixels=True)
    for name, part, example in parts:
        tell(f"tracing {name}")
        program.add(name, part, example)
    tell("converting")
    asset = folder / ASSET
    program.save(asset)
    seconds = time.perf_counter() - started
    whole = sum(path.stat().st_size for path in asset.rglob("*") if path.is_file())
    rows = [
        ("unique fp16 parameters", size(unique), "", ""),
        ("whole asset", size(whole), f"{whole / unique:.4f} ×", f"≤ {ASSET_BAR} ×"),
        (f"converting {len(parts)} functions", f"{seconds:.1f} s", "", ""),
    ]
    missed = [f"asset: {whole / unique:.4f} ×, at most {ASSET_BAR} ×"] if whole > ASSET_BAR * unique else []
    data = {"unique": unique, "asset": whole, "seconds": seconds, "functions": len(parts)}
    title = "morvit_b16, fp16: a stem and five buckets in one asset"
    return Table(title, ("what", "value", "ratio", "bar"), rows), data, missed


def _ladder(config: Config) -> Plan:
    """Capacities that shrink by 0.6 a step, from 10 to 70 % of the patches."""
    shares = (0.1, 0.25, 0.45, 0.7)
    capacities = [
        tuple(max(1, int(config.num_patches * share * 0.6**step)) for step in range(config.num_steps))
        for share in shares
    ]
    return ladder(config, capacities)


def _opinion(folder: Path, tell: Any) -> Measured:
    rows, data, missed = [], {}, []
    checkpoint = EXAMPLES / "digits-expert"
    model = load_checkpoint(checkpoint)
    precisions: tuple[Literal["fp32", "fp16"], ...] = ("fp32", "fp16")
    selects: tuple[Select, ...] = ("topk", "onehot")
    for precision in precisions:
        pixels = synthetic_images(IMAGES[precision], model.config.image_size, seed=0)
        expected = model.double()(exactly_normalised(pixels, model.config.preprocess)).logits.numpy()
        for select in selects:
            found = {}
            for target in ("coreml", "coreai"):
                tell(f"{target}, {precision}, {select}")
                bundle = folder / f"{target}-{precision}-{select}"
                worse = precision == "fp16"
                export(
                    checkpoint, bundle, target=target, precision=precision, select=select, allow_worse=worse
                )
                with open_bundle(bundle) as session:
                    found[target] = session.logits(pixels).astype(np.float64)
            scale = max(1.0, float(np.abs(expected).max()))
            gaps = {
                "between": float(np.abs(found["coreml"] - found["coreai"]).max()),
                "interpreter": float(np.abs(found["coreml"] - expected).max()),
                "runtime": float(np.abs(found["coreai"] - expected).max()),
            }
            same = float((found["coreml"].argmax(axis=1) == found["coreai"].argmax(axis=1)).mean())
            data[f"{precision} {select}"] = {**gaps, "scale": scale, "same_class": same}
            rows.append((precision, select, *(f"{gap:.2g}" for gap in gaps.values()), f"{same:.0%}"))
            if precision == "fp32" and gaps["runtime"] > FP32_BAR * scale:
                missed.append(f"{precision}, {select}: max |Δlogit| {gaps['runtime']:.3g}")
    columns = ("precision", "select", "between the two", "interpreter", "Apple's runtime", "same class")
    return Table("Core ML's interpreter and Core AI's runtime, max |Δlogit|", columns, rows), data, missed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("size", "opinion"))
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
