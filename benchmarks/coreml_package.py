"""Bars of target coreml, on any machine: `python benchmarks/coreml_package.py size|answers -o out.json`.

`size`: a stem and five buckets of MoR-ViT-B/16 in fp16 in one package, its bytes against those of the unique fp16
parameters, and the time to convert all functions against the time of one whole graph. Weights are random; the plan
has made-up thresholds and a ladder from a tenth to all of the tokens.

`answers`: both trained digits models in every form, fp32 and fp16, every bucket of their calibrated plans, by the
interpreter against the float64 reference on the test pictures. About ten minutes on two cores.

Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

from common import run, shrinking_ladder
from rich.console import Console

from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.coreml.contract.names import PACKAGE
from morvit_deploy.exporters.coreml.contract.options import coreml_options
from morvit_deploy.exporters.coreml.mlpackage.convert import Wanted, convert
from morvit_deploy.exporters.coreml.mlpackage.save import WEIGHTS
from morvit_deploy.exporters.functions.tracing import functions
from morvit_deploy.files import any_file, write_text
from morvit_deploy.graph.unroll import unroll_plan
from morvit_deploy.model.checkpoint import init_model, save_checkpoint
from morvit_deploy.model.choices import Layout, Select
from morvit_deploy.model.plan import Plan, own_plan
from morvit_deploy.model.presets import preset
from morvit_deploy.planning.rounds import calibrate
from morvit_deploy.report import Table, size
from morvit_deploy.verifying.outcome import Verification

BUCKETS = 5
WEIGHT_BAR, PACKAGE_BAR = 1.03, 1.06  # × the bytes of the unique fp16 parameters
TIME_BAR = 5.0  # × converting one graph
FP32_BAR = 1e-3  # max |Δlogit|; × max(1, max |logit|) would be allowed
FP16_BAR = 0.995  # of the classes, and of the tokens at each step
EXAMPLES = Path(__file__).parents[1] / "examples"


def main() -> int:
    """Measure, print; the exit status."""
    options = _options()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        measure = _size if options.what == "size" else _answers
        table, data, missed = measure(Path(scratch), status.update)
    print(table.markdown())
    for line in missed:
        console.print(f"missed: {line}", markup=False)
    if options.out:
        write_text(options.out, json.dumps(data, indent=1, allow_nan=False) + "\n", replaces=any_file)
    return 1 if missed else 0


def _size(folder: Path, tell: Any) -> tuple[Table, dict[str, Any], list[str]]:
    model = init_model(preset("morvit_b16"), seed=0)
    save_checkpoint(model, folder / "checkpoint")
    plan = shrinking_ladder(model.config)
    write_text(folder / "plan.json", plan.to_json())
    seconds = {"one graph": _convert_s(model, own_plan(model.config), tell)}
    seconds["stem and five buckets"] = _convert_s(model, plan, tell)
    tell("exporting")
    exported = export(
        folder / "checkpoint", folder / "bundle", target="coreml", plan=folder / "plan.json", allow_worse=True
    )
    package = folder / "bundle" / PACKAGE
    weights = (package / WEIGHTS).stat().st_size
    whole = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    unique = 2 * exported.manifest.checkpoint.parameters
    ratio = seconds["stem and five buckets"] / seconds["one graph"]
    rows = [
        ("unique fp16 parameters", size(unique), "", ""),
        ("weight file", size(weights), f"{weights / unique:.4f} ×", f"≤ {WEIGHT_BAR} ×"),
        ("whole package", size(whole), f"{whole / unique:.4f} ×", f"≤ {PACKAGE_BAR} ×"),
        *((f"converting {name}", f"{spent:.1f} s", "", "") for name, spent in seconds.items()),
        ("ratio", "", f"{ratio:.2f} ×", f"≤ {TIME_BAR} ×"),
    ]
    bars = [
        ("weight file", weights / unique, WEIGHT_BAR),
        ("whole package", whole / unique, PACKAGE_BAR),
        ("converting", ratio, TIME_BAR),
    ]
    missed = [f"{name}: {found:.4f} ×, at most {bar} ×" for name, found, bar in bars if found > bar]
    data = {"unique": unique, "weights": weights, "package": whole, "seconds": seconds, "ratio": ratio}
    return (
        Table("morvit_b16, fp16: five buckets in one package", ("what", "value", "ratio", "bar"), rows),
        data,
        missed,
    )


def _convert_s(model: Any, plan: Plan, tell: Any) -> float:
    """Seconds to convert all functions of a plan, unrolled and traced beforehand or not: all that export repeats."""
    graphs = unroll_plan(model, plan, coreml_options("uint8", "bsd", "topk"))
    started = time.perf_counter()
    for name, part, example in functions(graphs, plan):
        tell(f"converting {name}")
        convert(part, example, Wanted(18, "fp16", True))
    return time.perf_counter() - started


def _answers(folder: Path, tell: Any) -> tuple[Table, dict[str, Any], list[str]]:
    rows, data, missed = [], {}, []
    for name in ("digits-expert", "digits-token"):
        checkpoint = EXAMPLES / name
        scale = 1.0 if name == "digits-expert" else None  # token_choice has none
        plan = calibrate(checkpoint, EXAMPLES / "digits-test", mode="threshold", buckets=3, scale=scale).plan
        write_text(folder / f"{name}.json", plan.to_json())
        for precision in ("fp32", "fp16"):
            for layout in get_args(Layout):
                for select in get_args(Select):
                    tell(f"{name}, {precision}, {layout}, {select}")
                    found = export(
                        checkpoint, folder / "bundle", target="coreml", plan=folder / f"{name}.json", force=True,
                        images=EXAMPLES / "digits-test", limit=200, precision=precision, layout=layout, select=select,
                        allow_worse=precision == "fp16", with_depth=True,
                    ).verification  # fmt: skip
                    row = _seen(found)
                    where = f"{name} {precision} {layout} {select}"
                    data[where] = row
                    rows.append(
                        (name, precision, layout, select, *(f"{value:.4g}" for value in row.values()))
                    )
                    if precision == "fp32" and row["max_abs"] > FP32_BAR:
                        missed.append(f"{where}: max |Δlogit| {row['max_abs']:.3g}")
                    if precision == "fp16" and min(row["top1"], row["tokens"]) < FP16_BAR:
                        missed.append(f"{where}: top-1 {row['top1']:.2%}, tokens {row['tokens']:.2%}")
    columns = (
        "model",
        "precision",
        "layout",
        "select",
        "max abs Δlogit",
        "top-1",
        "tokens, worst step",
    )
    return Table("Packages against the float64 reference", columns, rows), data, missed


def _seen(found: Verification) -> dict[str, float]:
    gap = found.conversion_gap
    tokens = [share for seen in found.fidelity for share in seen.token_agreement]
    top1 = [1 - len(seen.flips) / seen.images for seen in found.fidelity]
    return {
        "max_abs": gap.max_abs,
        "top1": min(top1, default=gap.top1_agreement),
        "tokens": min(tokens, default=min(found.router_agreement or (1.0,))),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("size", "answers"))
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
