"""Bars of target coreai, on any machine: `python benchmarks/coreai_asset.py size|opinion|weights -o out.json`.

`size`: a stem and five buckets of MoR-ViT-B/16 in fp16 in one asset, its bytes against those of the unique fp16
parameters. Weights are random; the plan has made-up thresholds and a ladder from a tenth to all of the tokens.

`opinion`: the same static graphs of a trained digits model as a Core ML package, run by this project's interpreter,
and as a Core AI asset, run by Apple's runtime: the difference between the two, and of each from the float64
reference. Of an fp16 asset Apple's runtime sums products in float32 here, as bundles of it do on Linux.

`weights`: both trained digits models in each of `--weights`, in fp32, with the checkpoint's own schedule: bytes, and
the answers on the test pictures by Apple's runtime against the float64 reference.

Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from common import run, shrinking_ladder
from numpy.typing import NDArray
from rich.console import Console

from morvit_deploy.bundle.pixels import read_image, synthetic_images
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.coreai.compress import compress
from morvit_deploy.exporters.coreai.convert import Program
from morvit_deploy.exporters.coreai.export import halve
from morvit_deploy.exporters.coreai.names import ASSET, Weights
from morvit_deploy.exporters.coreai.runtime import Executable
from morvit_deploy.exporters.functions.tracing import functions
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.files import any_file, write_text
from morvit_deploy.graph.style.styles import Options, style_of
from morvit_deploy.graph.unroll import unroll_plan
from morvit_deploy.model.checkpoint import init_model, load_checkpoint
from morvit_deploy.model.choices import Select
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.presets import preset
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.report import Table, size
from morvit_deploy.verifying.comparison import exactly_normalised

ASSET_BAR = 1.05  # × the bytes of the unique fp16 parameters
FP32_BAR = 1e-4  # × max(1, max |logit|), Apple's runtime against the float64 reference
EXAMPLES = Path(__file__).parents[1] / "examples"
IMAGES = 32
PRECISIONS = ("fp32", "fp16")

Measured = tuple[Table, dict[str, Any], list[str]]


def main() -> int:
    """Measure, print; the exit status."""
    options = _options()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        if options.what == "size":
            table, data, missed = _size(Path(scratch), status.update)
        elif options.what == "weights":
            table, data, missed = _weights(Path(scratch), status.update)
        else:
            table, data, missed = _opinion(Path(scratch), status.update, options.precision)
    print(table.markdown())
    for line in missed:
        console.print(f"missed: {line}", markup=False)
    if options.out:
        write_text(options.out, json.dumps(data, indent=1, allow_nan=False) + "\n", replaces=any_file)
    return 1 if missed else 0


def _size(folder: Path, tell: Any) -> Measured:
    model = init_model(preset("morvit_b16"), seed=0)
    unique = 2 * sum(parameter.numel() for parameter in model.parameters())
    plan = shrinking_ladder(model.config)
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


def _opinion(folder: Path, tell: Any, precisions: Sequence[Literal["fp32", "fp16"]]) -> Measured:
    rows, data, missed = [], {}, []
    checkpoint = EXAMPLES / "digits-expert"
    model = load_checkpoint(checkpoint)
    selects: tuple[Select, ...] = ("topk", "onehot")
    for precision in precisions:
        pixels = synthetic_images(IMAGES, model.config.image_size, seed=0)
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


def _weights(folder: Path, tell: Any) -> Measured:
    rows, data, missed = [], {}, []
    for name in ("digits-expert", "digits-token"):
        model = load_checkpoint(EXAMPLES / name)
        graphs = unroll_plan(model, own_plan(model.config), Options("uint8", True, style_of("bsd", "topk")))
        (graph,) = graphs.values()
        tell(f"{name}: converting")
        program = Program("fp32", pixels=True)
        for function, part, example in functions(graphs, own_plan(model.config)):
            program.add(function, part, example)
        program.save(folder / f"{name}.aimodel")
        config = model.config
        paths = sorted((EXAMPLES / "digits-test").glob("*.png"))
        pictures = np.stack(
            [read_image(path, config.preprocess, config.image_size, upscale=True) for path in paths]
        )
        expected = _expected(model, pictures)
        for weights in get_args(Weights):
            tell(f"{name}: {weights}")
            asset = shutil.copytree(folder / f"{name}.aimodel", folder / f"{name}-{weights}.aimodel")
            if weights != "float":
                compress(asset, weights, graph, {})
            size_of_all = sum(path.stat().st_size for path in asset.rglob("*") if path.is_file())
            seen = {"bytes": size_of_all, **_seen(asset, pictures, *expected)}
            data[f"{name} {weights}"] = seen
            cells = (f"{seen['bytes'] / 1e6:.2f} MB", f"{seen['max_abs']:.2g}", f"{seen['snr_db']:.1f} dB")
            rows.append((name, weights, *cells, f"{seen['same_class']:.1%}", f"{seen['same_depth']:.2%}"))
            if weights == "float" and seen["max_abs"] > FP32_BAR * seen["scale"]:
                missed.append(f"{name}: max |Δlogit| {seen['max_abs']:.3g}")
    columns = (
        "model",
        "weights",
        "asset",
        "max |Δlogit|",
        "median SNR",
        "same class",
        "patches of the same depth",
    )
    return Table("Core AI assets in fp32 with compressed weights", columns, rows), data, missed


def _expected(model: MoRViT, pictures: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and depths of the float64 reference."""
    outcome = copy.deepcopy(model).double()(exactly_normalised(pictures, model.config.preprocess))
    return outcome.logits.numpy(), outcome.depth.numpy()


def _seen(
    asset: Path, pictures: NDArray[np.uint8], logits: NDArray[Any], depth: NDArray[Any]
) -> dict[str, float]:
    executable = Executable(asset)
    run_main = executable.load("main")
    found = [run_main({"image": picture[None]}, []) for picture in pictures]
    executable.free()
    told = np.concatenate([one["logits"] for one in found]).astype(np.float64)
    noise, power = (np.square(values).sum(axis=1) for values in (told - logits, logits))
    return {
        "max_abs": float(np.abs(told - logits).max()),
        "snr_db": float(np.median(10 * np.log10(power / np.maximum(noise, 1e-30)))),
        "same_class": float((told.argmax(axis=1) == logits.argmax(axis=1)).mean()),
        "same_depth": float((np.concatenate([one["depth"] for one in found]) == depth).mean()),
        "scale": max(1.0, float(np.abs(logits).max())),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("size", "opinion", "weights"))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
