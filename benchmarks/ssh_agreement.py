"""Does `bench --device ssh` measure what `bench --device cpu` measures? One bundle, both ways, on one machine.

Over SSH to this very machine (or any other one, for a look at the agent's own times): run it on a quiet machine.

    python benchmarks/ssh_agreement.py BUNDLE --host localhost -o agreement.json

Both ways are taken in turn, ROUNDS times, so that a slow change of the machine's clock meets both; the figure is the
ratio of the medians over all samples. Exit status 1 when it is further from 1 than AGREES.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median

from common import run, write_json

from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.loader import agent_archive

ROUNDS = 3
AGREES = 0.15  # medians of one run on a machine with other tenants differ by so much by themselves
MOST_BYTES, MOST_START_S = 5 << 20, 1.0


def main() -> int:
    """Measure, print, write; 0 when both ways agree and the agent is as small and quick as promised."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("bundle", type=Path)
    asked.add_argument("--host", required=True)
    asked.add_argument("--ssh-config", type=Path)
    asked.add_argument("--python", default=sys.executable)
    asked.add_argument("--threads", type=int)
    asked.add_argument("--blocks", type=int, default=5)
    asked.add_argument("-o", "--out", type=Path)
    given = asked.parse_args()
    host = Host(given.host, config=given.ssh_config, python=given.python)
    amount = {"threads": given.threads, "blocks": given.blocks, "starts": 2}
    here: list[BenchResult] = []
    there: list[BenchResult] = []
    for number in range(1, ROUNDS + 1):
        print(f"round {number} of {ROUNDS}", file=sys.stderr)
        here.append(bench(given.bundle, **amount))
        there.append(bench(given.bundle, device="ssh", host=host, **amount))
    found = compared(here, there)
    print(json.dumps(found, indent=1))
    runs = {"here": [one.as_dict() for one in here], "there": [one.as_dict() for one in there]}
    write_json(given.out, {**found, **runs})
    agrees = abs(found["ratio"] - 1) <= AGREES
    light = found["agent_bytes"] <= MOST_BYTES and found["agent_started_s"] < MOST_START_S
    return 0 if agrees and light else 1


def compared(here: list[BenchResult], there: list[BenchResult]) -> dict[str, float]:
    """Medians over every sample of both ways, ms, and their ratio; the agent's size and its slowest start."""
    medians = [
        median(ms for result in taken for ms in result.measured[0].samples_ms) for taken in (here, there)
    ]
    return {
        "here_ms": medians[0],
        "there_ms": medians[1],
        "ratio": medians[1] / medians[0],
        "cold_start_here_ms": median(one.measured[0].start_ms("cold_start_ms") for one in here),
        "cold_start_there_ms": median(one.measured[0].start_ms("cold_start_ms") for one in there),
        "agent_bytes": len(agent_archive()),
        "agent_started_s": max(one.conditions["agent"]["started_s"] for one in there),
    }


if __name__ == "__main__":
    run(main)
