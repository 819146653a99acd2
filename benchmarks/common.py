"""What the benchmarks share: a plan from schedules, what is printed after the tables, the file, the exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from morvit_deploy.errors import MorvitError
from morvit_deploy.files import any_file, write_text
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.views import conditions_table
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import FULL, Bucket, Plan, bucket_macs

Thresholds = tuple[float | None, ...]


def ladder(
    config: Config,
    schedules: Sequence[tuple[int, ...]],
    thresholds: Thresholds | None = None,
    *,
    share: float | None = None,
    checkpoint: str | None = None,
) -> Plan:
    """A bucket for each schedule (capacity at each step), cheapest first, and `full`; thresholds default to 0."""
    chosen = thresholds or (0.0,) * config.num_steps
    named = [(f"b{number}", schedule) for number, schedule in enumerate(schedules)]
    named.append((FULL, (config.num_patches,) * config.num_steps))
    buckets = tuple(
        Bucket(name=name, capacity=held, macs=bucket_macs(config, held, chosen), share=share, upto=held[0])
        for name, held in named
    )
    return Plan(
        format="morvit-plan/1", mode="threshold", thresholds=chosen, buckets=buckets, checkpoint=checkpoint
    )


def shrinking_ladder(config: Config) -> Plan:
    """Capacities that shrink by 0.6 a step, from 10 to 70 % of the patches."""
    shares = (0.1, 0.25, 0.45, 0.7)
    capacities = [
        tuple(max(1, int(config.num_patches * share * 0.6**step)) for step in range(config.num_steps))
        for share in shares
    ]
    return ladder(config, capacities)


def print_conditions(result: BenchResult, console: Console) -> None:
    """The table of conditions on stdout, warnings on `console`."""
    print(conditions_table(result.device, result.conditions, result.measured).markdown())
    for warning in result.warnings:
        console.print(f"warning: {warning}", markup=False)


def write_json(path: Path | None, data: Mapping[str, Any]) -> None:
    """The figures, with every raw sample; nothing without --out."""
    if path:
        write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n", replaces=any_file)


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with the status of `main`, or with the message of a MorvitError."""
    try:
        sys.exit(main())
    except MorvitError as error:
        sys.exit(f"error: {error}")
