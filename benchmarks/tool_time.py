"""Time and memory of the tool itself: `python benchmarks/tool_time.py --part export -o tool_time.json`.

Each task runs in a process of its own, the tasks of a part in turn; seconds are without the imports, unless the part
measures these. `--before FOLDER` runs each task with the modules of another checkout too, for both in one run.

- `export`: `morvit_b16` with five buckets, verified, against one plain `torch.onnx.export` of ViT-B/16
- `one`: the same with one bucket
- `int8`: `morvit_b16` in int8, calibrated on pictures
- `verify`: the bundle of five buckets against its checkpoint
- `calibrate`: a plan from pictures
- `help`: `morvit-deploy --help`
- `cold`: a new process to its first answer, `morvit_b16` against ViT-B/16

Random weights, seed 0. Wants a quiet machine. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

EXPORT_BAR = 4.0  # × one plain export of ViT-B/16, five buckets with verification
COLD_BAR = 0.45  # × ViT-B/16's
PICTURES, SIDE = 40, 256
# of the random weights, as `dispatch.py` calibrates them: each bucket serves a fifth of synthetic pictures
THRESHOLDS = (-0.015015, 0.2359, 0.477524, 0.580183, 4.838549, 5.171773, None, None, None, None)
CAPACITIES = (
    (53, 37, 18, 9, 2, 1, 1, 1, 1, 1),
    (71, 42, 20, 14, 6, 2, 2, 2, 2, 2),
    (82, 41, 17, 9, 4, 3, 3, 3, 3, 3),
    (105, 48, 24, 12, 5, 5, 5, 5, 5, 5),
)
PROGRAM = "import sys; from morvit_deploy.cli import main; sys.argv[1:] = ['--help']; main()"
PARTS = {
    "export": ("plain", "five"),
    "one": ("plain", "one"),
    "int8": ("int8",),
    "verify": ("verify",),
    "calibrate": ("calibrate",),
    "help": ("help",),
    "cold": ("cold-morvit", "cold-vit"),
}
BARS = {"export": ("five", "plain", EXPORT_BAR), "cold": ("cold-morvit", "cold-vit", COLD_BAR)}


def main() -> int:
    """Prepare, run the tasks in turn, print; the exit status."""
    options = _options()
    if options.child:
        print(json.dumps(_measured(TASKS[options.child], options.work, options.pictures)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        _prepare(work, PARTS[options.part])
        if options.prepare_only:
            return 0
        samples: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.repeats):
            for task in PARTS[options.part]:
                for label, modules in (("", None), *((("before ", options.before),) * bool(options.before))):
                    found = _child(task, work, modules, options)
                    samples.setdefault(label + task, []).append(found)
                    print(f"{label}{task}: {found}", file=sys.stderr)
    _print(samples)
    if options.out:
        options.out.write_text(json.dumps(samples, indent=1) + "\n", encoding="utf-8")
    return _judge(options.part, samples)


def _child(task: str, work: Path, modules: Path | None, options: argparse.Namespace) -> dict[str, float]:
    """One task in a new process: seconds inside it, seconds of the whole process, and its peak of memory in MiB."""
    path = {} if modules is None else {"PYTHONPATH": str(modules)}
    command = [sys.executable, "-P", __file__, "--child", task, "--work", str(work)]
    command += ["--pictures", str(options.pictures)]
    if task == "help":
        command = [sys.executable, "-P", "-c", PROGRAM]
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{task} failed:\n{done.stderr[-2000:]}")
    inside = {} if task == "help" else json.loads(done.stdout.splitlines()[-1])
    return {"seconds": wall, **inside, "process_s": wall}


def _measured(task: Callable[[Path, int], float | None], work: Path, pictures: int) -> dict[str, float]:
    """What a task of this process took, and how far the memory rose above that of its imports."""
    cold = task in (_cold_morvit, _cold_vit)
    if not cold:
        import morvit_deploy.exporters.api
        import morvit_deploy.exporters.onnx.export
        import morvit_deploy.planning.rounds  # noqa: F401  # not timed
    from morvit_deploy.agent.host.machine import memory_mib

    before, start = memory_mib(), time.perf_counter()
    task(work, pictures)
    seconds, after = time.perf_counter() - start, memory_mib()
    peaks = {"imports_mib": before["peak"], "peak_mib": after["peak"]}
    return peaks if cold else {"seconds": seconds, **peaks}


def _plain(work: Path, pictures: int) -> None:
    import torch

    from morvit_deploy.graph.baselines import build_graphs
    from morvit_deploy.graph.style.styles import Options, style_for_batch
    from morvit_deploy.model.checkpoint import load_checkpoint
    from morvit_deploy.model.plan import own_plan

    model = load_checkpoint(work / "vit_b16")
    how = Options("uint8", False, style_for_batch(1))
    (graph,) = build_graphs("masked", model, own_plan(model.config), how).values()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.static = graph

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.static(image)["logits"]
            return logits

    with tempfile.TemporaryDirectory(dir=work) as out:
        example = (graph.stem.example(1),)
        torch.onnx.export(Logits().eval(), example, Path(out) / "vit.onnx", opset_version=18, dynamo=True)


def _export(work: Path, name: str, **how: Any) -> None:
    from morvit_deploy.exporters.api import export

    export(work / "morvit_b16", work / name, force=True, **how)


def _one(work: Path, pictures: int) -> None:
    _export(work, "one")


def _five(work: Path, pictures: int) -> None:
    _export(work, "five", plan=work / "plan.json")


def _int8(work: Path, pictures: int) -> None:
    _export(work, "int8", precision="int8", images=work / "pictures", allow_worse=True)


def _verify(work: Path, pictures: int) -> None:
    from morvit_deploy.exporters.verification import verify

    assert verify(work / "five", work / "morvit_b16").passed


def _calibrate(work: Path, pictures: int) -> None:
    from morvit_deploy.planning.rounds import calibrate

    calibrate(work / "morvit_b16", work / "pictures", limit=pictures, allow_worse=True)


def _cold_morvit(work: Path, pictures: int) -> None:
    _answer(work / "one")


def _cold_vit(work: Path, pictures: int) -> None:
    _answer(work / "vit")


def _answer(bundle: Path) -> None:
    import morvit_deploy as md

    with md.open_bundle(bundle, threads=2) as session:
        session.logits(np.zeros((1, *session.manifest.config.image_shape, 3), np.uint8))


TASKS: dict[str, Callable[[Path, int], None]] = {
    "plain": _plain,
    "one": _one,
    "five": _five,
    "int8": _int8,
    "verify": _verify,
    "calibrate": _calibrate,
    "cold-morvit": _cold_morvit,
    "cold-vit": _cold_vit,
}


def _prepare(work: Path, tasks: tuple[str, ...]) -> None:
    """Make the checkpoints, pictures, the plan and the bundles that the tasks read."""
    from morvit_deploy.model.checkpoint import init_model, save_checkpoint
    from morvit_deploy.model.presets import preset

    for name in ("morvit_b16", "vit_b16"):
        if not (work / name).exists():
            save_checkpoint(init_model(preset(name), seed=0), work / name)
    _draw(work / "pictures")
    if not (work / "plan.json").exists():
        _plan(work)
    if "verify" in tasks and not (work / "five").exists():
        _five(work, 0)
    if "cold-vit" in tasks:
        from morvit_deploy.exporters.api import export

        if not (work / "one").exists():
            _one(work, 0)
        if not (work / "vit").exists():
            export(work / "vit_b16", work / "vit", form="masked")


def _draw(folder: Path) -> None:
    from PIL import Image

    from morvit_deploy.bundle.pixels import synthetic_images

    if folder.exists():
        return
    folder.mkdir()
    for number, pixels in enumerate(synthetic_images(PICTURES, SIDE, seed=3)):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def _plan(work: Path) -> None:
    """Five buckets under thresholds of the checkpoint."""
    from common import ladder

    from morvit_deploy.files import any_file, write_text
    from morvit_deploy.model.checkpoint import fingerprint
    from morvit_deploy.model.presets import preset

    sha256 = fingerprint(work / "morvit_b16")
    plan = ladder(preset("morvit_b16"), CAPACITIES, THRESHOLDS, share=0.2, checkpoint=sha256)
    write_text(work / "plan.json", plan.to_json(), replaces=any_file)


def _print(samples: dict[str, list[dict[str, float]]]) -> None:
    print("| task | seconds | lowest to highest | peak MiB | above the imports |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for task, found in samples.items():
        seconds = [one["seconds"] for one in found]
        peaks = [one.get("peak_mib", float("nan")) for one in found]
        above = [one.get("peak_mib", float("nan")) - one.get("imports_mib", 0.0) for one in found]
        print(
            f"| {task} | {median(seconds):.3g} | {min(seconds):.3g} to {max(seconds):.3g} | "
            f"{median(peaks):.0f} | {median(above):.0f} |"
        )


def _judge(part: str, samples: dict[str, list[dict[str, float]]]) -> int:
    """Ratios against the bar of this part; 1 if it is missed."""
    if part not in BARS:
        return 0
    task, against, bar = BARS[part]
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(samples[task], samples[against], strict=True)]
    print(f"{task}: {median(ratios):.2f} × {against} ({min(ratios):.2f} to {max(ratios):.2f}); bar {bar}")
    return 0 if median(ratios) <= bar else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and memory of the tool itself.")
    parser.add_argument("--part", choices=PARTS, default="export")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write, with every raw sample")
    parser.add_argument("--work", type=Path, help="folder to keep checkpoints and bundles in")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=16, help="of `calibrate`")
    parser.add_argument("--before", type=Path, help="another checkout, to run the same tasks with")
    parser.add_argument("--prepare-only", action="store_true")
    parser.add_argument("--child", choices=TASKS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
