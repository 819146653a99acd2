"""Traces that are divided among processes are those of one process, in order, and none is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from faster_export import traced_anew
from tiny_models import make_config, random_model

from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.graphs import assembly, dividing
from morvit_deploy.exporters.onnx.graphs.assembly import trace_pieces
from morvit_deploy.exporters.onnx.graphs.dividing import Job, Traced, divided, processes_for
from morvit_deploy.exporters.onnx.graphs.trace import trace
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.pieces import Named, Whole
from morvit_deploy.graph.style.styles import Options, style_for_batch
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.plan import own_plan

CONFIGS = (make_config(), make_config(routing="none"), make_config(gate="delta"))


def graph_of(config: Any) -> StaticMoRViT:
    options = Options("uint8", False, style_for_batch(1))
    (graph,) = build_graphs("unrolled", random_model(config), own_plan(config), options).values()
    return graph


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    graphs = [graph_of(config) for config in CONFIGS]
    return [Job(Whole(graph), [example_image(graph, 1)]) for graph in graphs]


@pytest.fixture(scope="module")
def alone(jobs: list[Job]) -> list[Traced]:
    with traced_anew():
        return [trace(job.module, job.example, dynamic=False) for job in jobs]


def same(pieces: Sequence[Traced], others: Sequence[Traced]) -> bool:
    """Whether graphs, weights and probes are bit-identical."""
    return [(m.SerializeToString(), probes) for m, probes in pieces] == [
        (m.SerializeToString(), probes) for m, probes in others
    ]


def test_another_process_traces_the_same_bits(
    jobs: list[Job], alone: list[Traced], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dividing, "_taken", lambda folder, numbers: iter(()))  # nothing is traced here
    shares: list[float] = []
    assert same(divided(jobs, dynamic=False, processes=2, progress=shares.append), alone)
    assert shares == []


def test_without_others_this_process_traces_all(jobs: list[Job], alone: list[Traced]) -> None:
    shares: list[float] = []
    assert same(divided(jobs, dynamic=False, processes=1, progress=shares.append), alone)
    assert shares == [1 / 3, 2 / 3, 1]


def test_what_a_process_left_is_traced_here_with_a_warning(
    jobs: list[Job], alone: list[Traced], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def killed(number: int, folder: Path) -> Iterator[list[Any]]:
        (folder / "1.taken").touch()
        yield [SimpleNamespace(wait=lambda: None, returncode=-9)]

    monkeypatch.setattr(dividing, "_started", killed)
    with pytest.warns(RuntimeWarning, match=r"ended early, with exit status \[-9\]"):
        pieces = divided(jobs, dynamic=False, processes=2)
    assert same(pieces, alone)


def test_a_process_ends_with_an_error_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(([], False), tmp_path / dividing.JOBS)
    with pytest.raises(KeyboardInterrupt), dividing._started(1, tmp_path) as others:
        # a terminal's Ctrl-C is not sent to it: it would print where it was
        assert os.getsid(others[0].pid) == others[0].pid != os.getsid(0)
        raise KeyboardInterrupt
    assert others[0].returncode is not None


@pytest.mark.parametrize(
    ("number", "cores", "gib", "disk", "expected"),
    [
        (7, 2, 64, 9, 2),
        (7, 8, 64, 9, 3),
        (32, 64, 64, 9, 4),
        (2, 8, 64, 9, 1),
        (7, 1, 64, 9, 1),
        (7, 8, 2, 9, 1),
        (7, 8, 5, 9, 2),
        (7, 8, 64, 0, 1),
    ],
)
def test_processes_fit_the_machine(
    number: int, cores: int, gib: int, disk: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, free = SimpleNamespace(available=gib << 30), SimpleNamespace(free=disk << 30)
    monkeypatch.setattr(dividing, "available_cores", lambda: cores)
    monkeypatch.setattr(dividing.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(dividing.shutil, "disk_usage", lambda place: free)
    module = SimpleNamespace(parameters=lambda: [SimpleNamespace(nbytes=100 << 20)])
    assert processes_for([Job(cast("Named", module), [])] * number) == expected


@pytest.mark.parametrize(("least", "processes"), [(0, 2), (10**12, None), (0, None)])
def test_only_large_models_are_divided(
    least: float, processes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bucket_plans import EXPERT, threshold_ladder

    asked: list[int] = []

    def recorded(jobs: list[Job], *, processes: int, **how: Any) -> list[Traced]:
        asked.append(processes)
        return [assembly.trace(job.module, job.example, dynamic=how["dynamic"]) for job in jobs]

    monkeypatch.setattr(assembly, "LARGE_MACS", least)
    monkeypatch.setattr(assembly, "processes_for", lambda jobs: processes or 1)
    monkeypatch.setattr(assembly, "divided", recorded)
    plan, options = threshold_ladder(), Options("uint8", False, style_for_batch(1))
    graphs = build_graphs("unrolled", random_model(EXPERT), plan, options)
    image = example_image(graphs["full"], 1)
    pieces = trace_pieces(graphs, plan, image, dynamic=False, inside=True)
    assert [*pieces.parts] == ["stem", "b0", "b1", "full"] and pieces.unanswered is not None
    assert asked == [processes] * (processes is not None)
