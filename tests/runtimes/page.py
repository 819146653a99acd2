"""Writes the table: what was run, where and when, and a row for each runtime."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from bundles import MEANINGS
from runtimes import Runtime

from morvit_deploy.machine.integer_kernels import kernels_here
from morvit_deploy.machine.this import versions
from morvit_deploy.report import Table

TITLES = {
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-node": "onnxruntime-node",
    "onnxruntime-web": "onnxruntime-web (wasm)",
    "openvino": "OpenVINO",
}
NOTES = (
    "onnxruntime-node 1.20 ignores weights that are given as bytes. It was run in the bundle's folder, where it "
    "finds `weights.bin`. From 1.21 on this is not needed.",
    "OpenVINO was told to compute in float32 (`INFERENCE_PRECISION_HINT`); on processors with bfloat16 it would not.",
)
NO_BUNDLE = "no bundle"
WORKED_WITH = ("torch", "onnx", "onnxscript", "onnxsim")


@dataclass(frozen=True)
class Cell:
    """One bundle in one runtime."""

    model: str
    form: str
    runtime: Runtime
    text: str  # the difference of the logits, or why there is none
    passed: bool
    images: int = 0  # compared


def page(cells: Sequence[Cell], command: str, pictures: int) -> str:
    """Return `docs/runtimes.md`."""
    models = list(dict.fromkeys(cell.model for cell in cells))
    parts = [
        _opening(command),
        *(_table(cells, model, pictures).markdown() for model in models),
        _forms(cells),
    ]
    return "\n".join(parts)


def _opening(command: str) -> str:
    kernels = kernels_here()
    made = ", ".join(f"{name} {found}" for name, found in versions(WORKED_WITH).items())
    where = f"{platform.system()} {platform.machine()} ({kernels.instruction_set})"
    return f"""# Runtimes

The bundles of the [trained examples](../examples/README.md) in the runtimes below, on the CPU. Each cell is a
process of its own. It holds the largest difference between the runtime's logits and those of the float64 reference.

- **fp32:** classes, depths and buckets are equal, and logits are within 1e-4 × max(1, max |logit|).
- **fp16, int8, w8 and w4** meet their [gates](verification.md#below-fp32): classes, tokens at each step, error of the
  logits.
- **needs 1.23** is a release from before the oldest one that runs the bundle; the manifest names it.
- **{NO_BUNDLE}**: `export` refuses the model in this form, since it misses its gate.
- **FAILED** is a cell that does not, **not run** one that could not be run. The reasons are below the tables.

Command: `{command}` · {date.today()} · {where}, Python {platform.python_version()}; exported with {made}

int8 weights have {kernels.weight_bits} bits on this machine: see [Precision](onnx.md#precision).
"""


def _table(cells: Sequence[Cell], model: str, pictures: int) -> Table:
    own = [cell for cell in cells if cell.model == model]
    forms = list(dict.fromkeys(cell.form for cell in own))
    runtimes = list(dict.fromkeys(cell.runtime for cell in own))
    texts = {(cell.runtime, cell.form): cell.text.partition(":")[0] for cell in own}
    rows = [(title(one), *(texts.get((one, form), "") for form in forms)) for one in runtimes]
    compared = min((cell.images for cell in own if cell.images), default=0)
    caption = (
        f"{pictures} pictures of `examples/digits-test`. In fp32, those with a decision that round-off could "
        f"change are set aside; at least {compared} are compared."
    )
    return Table(model, ("runtime", *forms), rows, tuple(range(1, len(forms) + 1)), caption)


def title(runtime: Runtime) -> str:
    """The name of a row."""
    return f"{TITLES[runtime.package]} {runtime.version}"


def _forms(cells: Sequence[Cell]) -> str:
    forms = dict.fromkeys(cell.form for cell in cells)
    lines = ["## Columns", "", *(f"- **{form}:** {MEANINGS[form]}" for form in forms)]
    bad = [
        f"- {cell.model}, {cell.form}, {title(cell.runtime)}: {cell.text}"
        for cell in cells
        if not cell.passed
    ]
    lines += ["", "## Notes", "", *(f"- {note}" for note in NOTES)]
    return "\n".join([*lines, "", *(["## Not green", "", *bad, ""] if bad else [])])
