"""Tries mutated inputs of every kind and says how many were accepted, refused, and broke the promise.

    make fuzz                                                      10,000 inputs
    make fuzz FUZZ="--inputs 500 --seconds 60 --kinds config plan"
    make fuzz FUZZ="--replay build/fuzz/config-1"                  one again

What broke the promise is written to a folder, with its files and its command line.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import of_bundle
import of_command_line
import of_config
import of_devices
import of_fitted_bundle
import of_foreign
import of_image
import of_labels
import of_plan
import of_reference
import of_result
import of_safetensors
import of_statistics
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from places import ROOT
from promise import Case, Kind, Verdict, check
from seeds import make_seeds

MODULES = (
    of_config, of_safetensors, of_foreign, of_plan, of_bundle, of_fitted_bundle, of_statistics, of_reference,
    of_image, of_labels, of_result, of_devices, of_command_line,
)  # fmt: skip  # a table
KINDS: dict[str, Kind] = {module.KIND.name: module.KIND for module in MODULES}
WHOLE = sum(kind.part for kind in KINDS.values())
BATCH = 50  # inputs that hypothesis draws at once
FAILURES = Path("build/fuzz")


def explore(
    kind: Kind, seeds: Path, count: int, until: float = float("inf")
) -> Iterator[tuple[Case, Verdict]]:
    """Try up to `count` different cases until a time of `time.monotonic`; the same ones in every run."""
    seen: set[str] = set()
    for batch in range(2 * count // BATCH + 2):
        for case in _drawn(kind, seeds, batch):
            if len(seen) >= count or time.monotonic() > until:
                return
            if (name := _digest(case)) not in seen:
                seen.add(name)
                yield case, check(kind, case, seeds)


def _drawn(kind: Kind, seeds: Path, batch: int) -> list[Case]:
    """The cases of a batch."""
    found: list[Case] = []
    quietly = settings(
        max_examples=BATCH, phases=[Phase.generate], database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip  # two lines read better than five
    seed(batch)(quietly(given(kind.cases(seeds))(lambda case: found.append(case))))()
    return found


def _digest(case: Case) -> str:
    return hashlib.sha256(json.dumps(as_json(case)).encode()).hexdigest()


def as_json(case: Case) -> dict[str, object]:
    files = {n: None if c is None else base64.b64encode(c).decode() for n, c in case.files.items()}
    return {"words": case.words, "files": files, "facts": dict(case.facts)}


def keep(kind: Kind, case: Case, verdict: Verdict, number: int, into: Path = FAILURES) -> Path:
    """Write a case that broke the promise: `case.json`, its files to look at, and what it broke."""
    folder = into / f"{kind.name.replace(' ', '-')}-{number}"
    for name, content in case.files.items():
        if content is not None:
            (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "files" / name).write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").write_text(json.dumps({"kind": kind.name, **as_json(case)}, indent=2))
    (folder / "broken.txt").write_text(f"{' '.join(case.words)}\n\n{verdict.broken}\n")
    return folder


def kept(folder: Path) -> tuple[Kind, Case]:
    """The case in a folder that `keep` wrote."""
    found = json.loads((folder / "case.json").read_text())
    files = {n: None if text is None else base64.b64decode(text) for n, text in found["files"].items()}
    return KINDS[found["kind"]], Case(tuple(found["words"]), files, found["facts"])


def how_to_replay(folder: Path) -> str:
    return f'make fuzz FUZZ="--replay {folder}"'


def summary(verdict: Verdict) -> str:
    """What was broken in a line: of a traceback the error and the line of the package that it came from."""
    lines = verdict.broken.strip().splitlines()
    own = [
        line.partition(f"{ROOT}/")[2] for line in lines if f'File "{ROOT}/' in line and "/.venv/" not in line
    ]
    return f"{lines[-1]:.100}" + (f" at {own[-1]}" if own else "")


def fuzz(seeds: Path, inputs: int, seconds: float, kinds: list[str], into: Path) -> int:
    """Try all kinds and print a table; returns how many inputs broke the promise."""
    end = time.monotonic() + seconds
    print(f"{'kind':<14}{'tried':>7}{'accepted':>10}{'failed':>8}{'refused':>9}{'broken':>8}")
    totals: Counter[str] = Counter()
    chosen = [KINDS[name] for name in kinds]
    for number, kind in enumerate(chosen):
        left = sum(one.part for one in chosen[number:])
        until = time.monotonic() + max(0.0, end - time.monotonic()) * kind.part / left
        counts = _tried(kind, seeds, round(inputs * kind.part / WHOLE), until, into)
        print(_row(kind.name, counts), flush=True)
        totals += counts
    print(_row("all", totals))
    return totals["broken"]


def _tried(kind: Kind, seeds: Path, count: int, until: float, into: Path) -> Counter[str]:
    """Counts of one kind; the first input of each sort of failure is kept."""
    counts: Counter[str] = Counter()
    sorts: set[str] = set()
    for case, verdict in explore(kind, seeds, count, until):
        ended = {0: "accepted", 1: "failed"}.get(verdict.status, "refused")
        counts.update(("tried", "broken" if verdict.broken else ended))
        if verdict.broken and (sort := summary(verdict).rpartition(" at ")[2]) not in sorts:
            sorts.add(sort)
            folder = keep(kind, case, verdict, len(sorts), into)
            print(f"  {summary(verdict)}\n  {how_to_replay(folder)}", flush=True)
    return counts


def _row(name: str, counts: Counter[str]) -> str:
    columns = (("tried", 7), ("accepted", 10), ("failed", 8), ("refused", 9), ("broken", 8))
    return f"{name:<14}" + "".join(f"{counts[key]:>{width},}" for key, width in columns)


def in_seeds(act: Callable[[Path], int]) -> int:
    """Run with fresh seeds."""
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as folder:
        return act(make_seeds(Path(folder)))


def replay(folder: Path) -> int:
    """Run a kept case again; 1 if it still breaks the promise."""
    kind, case = kept(folder)

    def again(seeds: Path) -> int:
        verdict = check(kind, case, seeds)
        print(verdict.broken or f"holds: exit status {verdict.status}")
        return int(bool(verdict.broken))

    return in_seeds(again)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=WHOLE, help="mutated inputs, of all kinds together")
    parser.add_argument("--seconds", type=float, default=3600, help="stop after this time")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="KIND")
    parser.add_argument("--failures", type=Path, default=FAILURES, help="folder for what broke the promise")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="run one of them again")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.replay is not None:
        return replay(given.replay)
    start = time.monotonic()
    broken = in_seeds(
        lambda seeds: fuzz(seeds, given.inputs, given.seconds, given.kinds, given.failures.absolute())
    )
    print(f"{time.monotonic() - start:.0f} s")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
