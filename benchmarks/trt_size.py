"""Bytes of TensorRT-RTX engines of MoR-ViT-B/16 against its weights: `python benchmarks/trt_size.py -o size.json`.

One bucket, and five in one self-dispatching engine (`graph`) or in an engine each (`host`), in fp16. Needs the rtx
extra and no GPU; about ten minutes on two cores. Weights are random, which no size depends on. Exit status 1 when a
bar is missed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from common import ladder, run
from rich.console import Console

from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.exporters.request import Request
from morvit_deploy.exporters.trt.build import build_engines
from morvit_deploy.exporters.trt.export import TrtExporter
from morvit_deploy.exporters.trt.names import BUILD
from morvit_deploy.exporters.trt.options import TrtOptions
from morvit_deploy.files import any_file, write_text
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.model.checkpoint import init_model
from morvit_deploy.model.plan import Plan, own_plan
from morvit_deploy.model.presets import preset
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.report import Table, size

BARS = {
    "one bucket": 1.25,
    "five buckets, graph": 1.6,
}  # × the bytes of the unique fp16 weights; host is reported
LADDER = (  # patch tokens at each step, between the checkpoint's own schedule and twice it
    (40, 20, 10, 5, 2, 1, 1, 1, 1, 1),
    (80, 33, 14, 6, 2, 1, 1, 1, 1, 1),
    (120, 60, 30, 15, 6, 3, 2, 1, 1, 1),
    (160, 100, 60, 30, 15, 8, 4, 2, 2, 1),
)
TEXT = re.compile(rb"[\t\n\r -~]{200,}")
KERNEL = b"__global__"  # begins each kernel's source, which an RTX engine carries and compiles where it runs


@dataclass(frozen=True)
class Built:
    """Engines of one form."""

    name: str
    engines: dict[str, int]  # bytes
    kernels: int
    different: int  # of the kernels' sources
    compressed: int  # bytes of the engines under zlib
    weights: int  # bytes of the unique weights
    seconds: float

    @property
    def ratio(self) -> float:
        """Of all engines' bytes to the weights'."""
        return sum(self.engines.values()) / self.weights


Way: TypeAlias = Literal["graph", "host"] | None  # where a bucket is chosen
WAYS: tuple[Literal["graph", "host"], ...] = ("graph", "host")


def main() -> int:
    """Build, print; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write")
    parser.add_argument("--preset", default="morvit_b16")
    options = parser.parse_args()
    console = Console(stderr=True)
    model = init_model(preset(options.preset), seed=0)
    forms: dict[str, tuple[Plan, Way]] = {"one bucket": (own_plan(model.config), None)}
    forms |= {f"five buckets, {way}": (five(model), way) for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        found = [
            built(name, model, plan, way, Path(scratch) / str(number), status)
            for number, (name, (plan, way)) in enumerate(forms.items())
        ]
    print(table(found).markdown())
    if options.out:
        write_text(
            options.out, json.dumps([asdict(one) for one in found], indent=1) + "\n", replaces=any_file
        )
    missed = [one for one in found if one.ratio > BARS.get(one.name, one.ratio)]
    for one in missed:
        print(f"missed: {one.name} {one.ratio:.3f}, at most {BARS[one.name]}", file=sys.stderr)
    return 1 if missed else 0


def five(model: MoRViT) -> Plan:
    """LADDER and `full`, under thresholds of zero."""
    return ladder(model.config, LADDER)


def built(
    name: str, model: MoRViT, plan: Plan, way: Literal["graph", "host"] | None, folder: Path, status: object
) -> Built:
    """One form's engines, as `export` writes and builds them."""
    folder.mkdir()
    asked = Request(
        folder, folder, precision="fp16", dispatch=way, target="trt", options=TrtOptions(flavor="rtx")
    )  # the checkpoint is here, in memory
    exporter = TrtExporter()
    graphs = build_graphs("unrolled", model, plan, exporter.options(asked, with_depth=False))
    tell = getattr(status, "update")  # noqa: B009  # rich's Status, which has no public name
    exporter.write(graphs, plan, asked, folder, lambda stage: tell(f"{name}: {stage}"))
    record = build_engines(folder / BUILD, tell)  # kept from `write`
    contents = {
        engine["name"]: (folder / BUILD / engine["engine"]).read_bytes() for engine in record["engines"]
    }
    sources = [text for content in contents.values() for text in TEXT.findall(content) if KERNEL in text]
    return Built(
        name,
        {part: len(content) for part, content in contents.items()},
        len(sources),
        len(set(sources)),
        sum(len(zlib.compress(content)) for content in contents.values()),
        (folder / BUILD / "weights.bin").stat().st_size,
        sum(engine["seconds"] for engine in record["engines"]),
    )


def table(found: list[Built]) -> Table:
    """One row a form."""
    rows = [
        (
            one.name,
            size(one.weights),
            size(sum(one.engines.values())),
            f"{one.ratio:.3f}",
            f"{BARS[one.name]}" if one.name in BARS else "reported",
            str(one.kernels),
            str(one.different),
            size(one.compressed),
            f"{one.seconds:.0f}",
        )
        for one in found
    ]
    columns = (
        "engines",
        "unique weights",
        "engine bytes",
        "ratio",
        "bar",
        "kernels",
        "different",
        "compressed",
        "built in s",
    )
    _, rtx = trt_build.load_tensorrt("rtx")
    return Table(
        f"fp16 engines of TensorRT-RTX {rtx.__version__}",
        columns,
        rows,
        numeric=tuple(range(1, len(columns))),
    )


if __name__ == "__main__":
    run(main)
