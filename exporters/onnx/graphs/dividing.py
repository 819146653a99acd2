"""Divides the traces of a large model among processes, which is as many times faster. The pieces are the same.

Tracing is single-threaded Python. Each process takes the next job that no other has taken: this one from the first
on, the others from the last, since they must import PyTorch before. They are started as programs: a fork hangs where
PyTorch has threads, and `multiprocessing` would run the user's script again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import psutil
import torch
from torch import Tensor

from morvit_deploy.agent.host.machine import available_cores
from morvit_deploy.exporters.base import seldom_collected
from morvit_deploy.exporters.onnx.graphs.trace import trace
from morvit_deploy.graph.pieces import Named

Traced = tuple[onnx.ModelProto, tuple[str, ...]]  # a piece, and the names of its probes

MOST, EACH = 4, 2  # processes at most; jobs that each should have
# memory that should be free for each further process, and copies of the weights in it: twice what one peaks at
PROCESS_BYTES, COPIES = 1 << 30, 16
JOBS = "jobs.pt"


@dataclass(frozen=True)
class Job:
    """A module to trace, and its example inputs."""

    module: Named
    example: Sequence[Tensor]


def processes_for(jobs: Sequence[Job]) -> int:
    """How many processes should trace these modules: as many as cores, memory and the disk have room for."""
    weights = sum(parameter.nbytes for parameter in jobs[0].module.parameters())
    if shutil.disk_usage(tempfile.gettempdir()).free < (1 + len(jobs)) * weights:
        return 1
    room: int = 1 + psutil.virtual_memory().available // (PROCESS_BYTES + COPIES * weights)
    return max(1, min(MOST, len(jobs) // EACH, available_cores(), room))


def divided(
    jobs: Sequence[Job],
    *,
    dynamic: bool,
    processes: int,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Traced]:
    """The pieces of all jobs, in their order, traced by this process and `processes` - 1 others.

    What another process did not finish is traced here, with a warning.
    """
    with tempfile.TemporaryDirectory(prefix="morvit-traces-") as scratch:
        folder = Path(scratch)
        torch.save((list(jobs), dynamic), folder / JOBS)
        with _started(processes - 1, folder) as others:
            pieces: dict[int, Traced] = {}
            for number in _taken(folder, range(len(jobs))):
                pieces[number] = trace(jobs[number].module, jobs[number].example, dynamic=dynamic)
                progress((number + 1) / len(jobs))
            for other in others if len(pieces) < len(jobs) else ():
                other.wait()
        for number, job in enumerate(jobs):
            if number not in pieces:
                pieces[number] = _read(folder, number) or _again(job, dynamic, [o.returncode for o in others])
    return [pieces[number] for number in range(len(jobs))]


@contextmanager
def _started(number: int, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes that trace the jobs of a folder; they end with the block."""
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)  # the same modules as here
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", __name__, str(folder)]
    others = []
    try:
        for _ in range(number):
            # in a session of its own: Ctrl-C is for this process, which ends the others
            others.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
            )
        yield others
    finally:
        for other in others:
            other.kill()
            other.wait()


def _taken(folder: Path, numbers: Iterable[int]) -> Iterator[int]:
    """The jobs that no other process has taken, each when the one before is done."""
    for number in numbers:
        try:
            (folder / f"{number}.taken").touch(exist_ok=False)
        except FileExistsError:
            continue
        yield number


def _read(folder: Path, number: int) -> Traced | None:
    """What another process made of a job; None if it did not finish."""
    path = folder / f"{number}.json"
    if not path.exists():
        return None
    return onnx.load(path.with_suffix(".onnx")), tuple(json.loads(path.read_text(encoding="utf-8")))


def _again(job: Job, dynamic: bool, statuses: list[int]) -> Traced:
    warnings.warn(
        f"a process that traced graphs ended early, with exit status {statuses} (is memory short?); "
        "its graph is traced here",
        RuntimeWarning,
        stacklevel=3,
    )
    return trace(job.module, job.example, dynamic=dynamic)


def main(folder: Path) -> None:
    """Trace jobs of a folder, from the last one on."""
    torch.set_num_threads(1)
    jobs, dynamic = torch.load(folder / JOBS, weights_only=False, mmap=True)
    with seldom_collected():
        for number in _taken(folder, reversed(range(len(jobs)))):
            model, probes = trace(jobs[number].module, jobs[number].example, dynamic=dynamic)
            onnx.save(model, folder / f"{number}.onnx")
            part = folder / f"{number}.part"
            part.write_text(json.dumps(probes), encoding="utf-8")
            part.rename(folder / f"{number}.json")  # complete


if __name__ == "__main__":
    main(Path(sys.argv[1]))
