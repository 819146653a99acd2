"""Changes the arithmetic and the conditions of the package and counts how many changes the tests notice.

    make mutants                                              240 mutants
    make mutants MUTANTS="--mutants 60 --modules model.plan"
    make mutants MUTANTS="--again model.plan:210.1"           one again

A mutant is a module with one change, such as < for <=. It is killed if a quick test of the module fails or does not
end in time. The survivors are printed: each is a test that is missing, or a change without effect.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from edits import Edit, edited, edits_of
from suites import SUITES
from trial import Trial, load_libraries

ROOT = Path(__file__).resolve().parents[2]
Mutant = tuple[str, Edit]  # module, change
PATIENCE = 5  # times as long as without a mutant
LEAST_SECONDS = 20.0
POLL = 0.02  # seconds


@cache
def source_of(module: str) -> str:
    """The text of a module, which is named without the package."""
    return (ROOT / "morvit_deploy" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def sample(modules: Iterable[str], count: int, seed: int) -> list[Mutant]:
    """Return `count` mutants, as many of each package; fewer where a package does not have as many."""
    packages: dict[str, list[Mutant]] = {}
    for module in modules:
        packages.setdefault(module.partition(".")[0], []).extend(
            (module, edit) for edit in edits_of(source_of(module))
        )
    draw = random.Random(seed)
    chosen = []
    for place, mutants in enumerate(packages.values()):
        share = count // len(packages) + (place < count % len(packages))
        chosen += draw.sample(mutants, min(share, len(mutants)))
    draw.shuffle(chosen)  # so that those tried within --seconds are a sample too
    return chosen


def named(name: str) -> Mutant:
    """The mutant of a name that a run printed."""
    module, _, number = name.partition(":")
    return module, next(edit for edit in edits_of(source_of(module)) if str(edit) == number)


def prepare(module: str, edit: Edit | None, seconds: float) -> Trial:
    tree = None if edit is None else edited(source_of(module), edit)
    return Trial(module, edit, tree, SUITES[module], seconds)


def run(trials: Iterable[Trial], processes: int) -> Iterator[tuple[Trial, str]]:
    """Yield trials as they end, with their results."""
    waiting, running = iter(trials), []
    while True:
        while len(running) < processes and (trial := next(waiting, None)) is not None:
            running.append(trial.start())
        if not running:
            return
        time.sleep(POLL)
        for trial in list(running):
            if (result := trial.result()) is not None:
                running.remove(trial)
                yield trial, result


def times_of(modules: Iterable[str], processes: int) -> dict[tuple[str, ...], float]:
    """Return the seconds of each suite without a mutant; the tests must pass."""
    suites = {tuple(SUITES[module]): module for module in modules}
    seconds = {}
    for trial, result in run((prepare(module, None, 600.0) for module in suites.values()), processes):
        if result != "survived":
            sys.exit(f"these tests fail without a mutant: {' '.join(trial.tests)}")
        seconds[tuple(trial.tests)] = trial.took
    return seconds


def try_all(mutants: list[Mutant], processes: int, until: float, limit: float | None) -> int:
    """Try mutants until a time of `time.monotonic`, print survivors and a table; returns how many survived."""
    seconds = {} if limit else times_of({module for module, _ in mutants}, processes)

    def prepared() -> Iterator[Trial]:
        for module, edit in mutants:
            if time.monotonic() < until:
                own = max(LEAST_SECONDS, PATIENCE * seconds.get(tuple(SUITES[module]), 0))
                yield prepare(module, edit, limit or own)

    counts: dict[str, Counter[str]] = {}
    for trial, result in run(prepared(), processes):
        counts.setdefault(trial.module.partition(".")[0], Counter()).update(("tried", result))
        if result != "killed" and trial.edit is not None:
            slow = "too slow: " if result == "timeout" else ""
            print(slow + described(trial.module, trial.edit), flush=True)
    show(counts)
    return sum(count["survived"] for count in counts.values())


def described(module: str, edit: Edit) -> str:
    return f"{module}:{edit} line {edit.line}: {edit.before}  ->  {edit.after}"


def show(counts: dict[str, Counter[str]]) -> None:
    """Print how many mutants of each package were killed."""
    print(f"{'package':<14}{'mutants':>9}{'killed':>8}{'too slow':>10}{'survived':>10}{'share':>9}")
    for name, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        numbers = f"{count['tried']:>9}{count['killed']:>8}{count['timeout']:>10}{count['survived']:>10}"
        print(f"{name:<14}{numbers}{1 - count['survived'] / count['tried']:>9.1%}")


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=240, help="of all packages together")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--seconds", type=float, default=7200, help="stop after this time")
    parser.add_argument("--limit", type=float, help="seconds for a mutant; measured first by default")
    parser.add_argument("--modules", nargs="+", default=list(SUITES), choices=list(SUITES), metavar="MODULE")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="only these mutants")
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at once")
    given = parser.parse_args()
    mutants = [named(name) for name in given.again] or sample(given.modules, given.mutants, given.seed)
    if given.list:
        for module, edit in mutants:
            print(described(module, edit))
        return 0
    os.chdir(ROOT)
    load_libraries()
    start = time.monotonic()
    survived = try_all(mutants, given.processes, start + given.seconds, given.limit)
    print(f"{time.monotonic() - start:.0f} s")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
