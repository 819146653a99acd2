"""Runs bundles, and the agent over SSH, on Arm processors that QEMU emulates. What it shows is correctness, no speed.

    make arm                                               20 pictures on three processors, about five minutes
    make arm ARM="--pictures 200 --processors cortex-a72"

Logits of `predict` in the emulated Debian are compared with the checkpoint's in float64 on this machine; those of
int8 also with the same graph in plain Q/DQ arithmetic. Exit status 1 when one is further away than it may be.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loopback
import numpy as np
import torch
from loopback import Loopback
from numpy.typing import NDArray
from places import EXAMPLES
from userland import FOLDER, PROCESSORS, Processor, Userland

import morvit_deploy as md
from morvit_deploy.agent.core.running import run_in_batches
from morvit_deploy.agent.run_ort import OrtRunner
from morvit_deploy.model.trace import Routing
from morvit_deploy.report import Report, Table
from morvit_deploy.verifying.comparison import exactly_normalised

Logits = NDArray[Any]

PICTURES = EXAMPLES / "digits-test"
TOLERANCE = 1e-4  # × max(1, max |logit|): float32 round-off, the bar of every runtime
INT8_FROM_QDQ = (
    0.25  # logits: a value that rounds the other way in one layer; saturating sums are off by up to 2
)
QUICK = {"runs": 10, "blocks": 2, "warmup": 1, "starts": 1, "threads": 1}  # bench is not here to be quick
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "expert-fp32": ("digits-expert", {}),
    "expert-int8": ("digits-expert", {"precision": "int8"}),
    "expert-adaptive": ("digits-expert", {"plan": {"mode": "threshold", "scale": 1}, "dispatch": "graph"}),
    "token-adaptive": ("digits-token", {"plan": {}, "dispatch": "host"}),
}
MEASURED = ("expert-fp32", "expert-int8")  # by `bench --device ssh`


@dataclass(frozen=True)
class Case:
    """A bundle, and the logits (pictures, classes) that it should return."""

    name: str
    bundle: Path
    exact: Logits  # of the checkpoint in float64
    plain: Logits | None  # of an int8 graph in Q/DQ arithmetic
    here: Logits  # of the bundle on this machine

    def row(self, where: str, found: Logits) -> tuple[str, ...]:
        """One row of the table."""
        same = int((found.argmax(1) == self.exact.argmax(1)).sum())
        from_plain = "" if self.plain is None else f"{np.abs(found - self.plain).max():.2g}"
        apart = f"{np.abs(found - self.exact).max():.2g}"
        return (where, self.name, apart, f"{same} of {len(found)}", from_plain)

    def passes(self, found: Logits) -> bool:
        """Are the logits as close as they may be on a processor that does not saturate?"""
        if self.plain is not None:
            return float(np.abs(found - self.plain).max()) <= INT8_FROM_QDQ
        near = np.abs(found - self.exact).max() <= TOLERANCE * max(1.0, np.abs(self.exact).max())
        return bool(near and (found.argmax(1) == self.exact.argmax(1)).all())


def main() -> int:
    """Export, run, compare, print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--pictures", type=int, default=20, help="how many of the 200 (default: 20)")
    asked.add_argument("--processors", nargs="+", choices=PROCESSORS, default=list(PROCESSORS))
    asked.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    given = asked.parse_args()
    machine = Userland()
    if machine.why_not:
        print(f"error: {machine.why_not}", file=sys.stderr)
        return 2
    pictures = sorted(PICTURES.glob("*.png"))[: given.pictures]
    cases = [made(name, pictures) for name in given.cases]
    rows, failed = [case.row("this machine", case.here) for case in cases], []
    for name in given.processors:
        for case in cases:
            found = predicted(machine, PROCESSORS[name], case, pictures)
            rows.append(case.row(name, found))
            print(*rows[-1], sep="  ", file=sys.stderr)
            failed += [] if case.passes(found) else [f"{case.name} on {name}"]
    columns = ("processor", "bundle", "max |Δlogit|", "same class", "from plain Q/DQ")
    tables = [Table("Logits against the checkpoint's in float64", columns, rows, numeric=(2, 3, 4))]
    tables += measured(machine, [case for case in cases if case.name in MEASURED], given.processors[0])
    print(Report("Emulated Arm processors", tables).markdown())
    print("\n".join(f"error: {one} differs" for one in failed), file=sys.stderr)
    return 1 if failed else 0


def made(name: str, pictures: list[Path]) -> Case:
    """The case, exported at the first run."""
    model, options = CASES[name]
    checkpoint, bundle = EXAMPLES / model, FOLDER / "bundles" / name
    if not bundle.exists():
        print(f"exporting {name}", file=sys.stderr)
        if "plan" in options:
            options = options | {
                "plan": md.calibrate(checkpoint, PICTURES, buckets=3, **options["plan"]).plan
            }
        more = {"images": PICTURES} if "plan" in options or "precision" in options else {}
        md.export(checkpoint, bundle, **options, **more)
    with md.open_bundle(bundle, threads=1) as session:
        pixels, manifest = np.stack([session.read(path) for path in pictures]), session.manifest
        here = session.logits(pixels)
    reference = md.load_checkpoint(checkpoint).double()
    plan = manifest.plan
    with torch.no_grad():
        inputs = exactly_normalised(pixels, manifest.preprocess)
        exact = reference(inputs, Routing(plan.thresholds) if plan.adaptive else None).logits.numpy()
    plain = plain_logits(bundle, pixels) if manifest.precision == "int8" else None
    return Case(name, bundle, exact, plain, here)


def plain_logits(bundle: Path, pixels: NDArray[np.uint8]) -> Logits:
    """Of a Q/DQ graph without integer kernels: products of the rounded values in float32, which cannot saturate."""
    with OrtRunner(bundle / "model.onnx", bundle, 1, integers=False) as runner:
        return run_in_batches(runner, pixels, 1, lambda batch: batch)["logits"]


def predicted(machine: Userland, processor: Processor, case: Case, pictures: list[Path]) -> Logits:
    """Logits of `predict` there."""
    machine.become(processor)
    print(f"{case.name} on {processor.qemu}", file=sys.stderr)
    out = machine.morvit(["predict", case.bundle, *pictures, "--threads", "1", "--json", "--logits"])
    return np.array([one["logits"] for one in json.loads(out)["predictions"]])


def measured(machine: Userland, cases: list[Case], processor: str) -> Iterator[Table]:
    """`bench --device ssh` with the emulated Python on the far side of an sshd on loopback."""
    if reason := loopback.why_not():
        print(f"bench --device ssh was not run: {reason}", file=sys.stderr)
        return
    machine.become(PROCESSORS[processor])
    server = Loopback(FOLDER / "sshd")
    server.start()
    try:
        rows = [benched(server, machine, case) for case in cases]
    finally:
        server.kill()
    columns = ("bundle", "agent on", "runtime", "parity: pictures", "other class", "max |Δlogit|", "runs")
    yield Table("The agent over SSH", columns, rows)


def benched(server: Loopback, machine: Userland, case: Case) -> tuple[str, ...]:
    """A row; ParityError where the agent returns other logits."""
    print(f"bench {case.name} --device ssh", file=sys.stderr)
    host = server.host(python=str(machine.python))
    found = md.bench(case.bundle, device="ssh", host=host, images=PICTURES, **QUICK).as_dict()
    known, (bundle,) = found["conditions"], found["bundles"]
    parity = known["parity"][str(case.bundle)]
    there = known["device_conditions"]["after"]["linux"]["machine"]
    return (
        case.name,
        f"{there['system'].split()[-1]}, {', '.join(there['instruction_sets'])}",
        f"onnxruntime {known['versions']['onnxruntime']}",
        str(parity["images"]),
        str(parity["class_flips"]),
        f"{parity['max_abs']:.2g}",
        str(sum(len(block["ms"]) for block in bundle["blocks"])),
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (md.MorvitError, RuntimeError) as error:
        sys.exit(f"error: {error}")
