"""The GPU bench up to the CUDA calls, over a made-up GPU; what it refuses where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from bucket_plans import threshold_ladder
from commands import refused
from fake_cuda import fake_gpu, put_engines
from tiny_models import make_config, random_pixels

from morvit_deploy.agent.trt import build
from morvit_deploy.errors import BundleError, ConfigError, TargetError
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.cuda import sessions
from morvit_deploy.measuring.cuda.bench import bench_cuda
from morvit_deploy.measuring.cuda.results import CudaResult, Timing, cuda_report
from morvit_deploy.timing.samples import Block

Exported = Callable[..., Path]
CONFIG = make_config()
FEW: dict[str, Any] = {"runs": 10, "blocks": 2, "warmup": 1}


def bundle_of(exported: Exported, tmp_path: Path, **options: Any) -> Path:
    bundle = exported(CONFIG, target="trt", precision="fp32", flavor="tensorrt", **options)
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("options", "batches", "expected"),
    [
        ({}, None, [("model", 1, False), ("model", 1, True)]),
        (
            {"plan": threshold_ladder(), "dispatch": "host"},
            None,
            [(name, 1, graph) for graph in (False, True) for name in ("stem", "b0", "b1", "full")],
        ),
        ({"plan": threshold_ladder(), "dispatch": "graph"}, None, [("model", 1, False)]),
        ({"batch": "dynamic", "max_batch": 4}, [1, 4], [("model", 1, False), ("model", 4, False)]),
    ],
    ids=["one bucket", "host", "self-dispatching", "dynamic"],
)
def test_every_part_is_timed_both_ways(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    batches: list[int] | None,
    expected: list[tuple[str, int, bool]],
) -> None:
    bundle = bundle_of(exported, tmp_path, **options)
    trt = fake_gpu(monkeypatch)
    put_engines(bundle, batch=(1, 4, 4))
    shares: list[float] = []
    result = bench_cuda(bundle, batches=batches, progress=shares.append, **FEW)
    found = [(t.part, t.batch, t.cuda_graph, t.transfers) for t in result.measured]
    assert found == [(*way, transfers) for way in expected for transfers in (False, True)]
    for timing in result.measured:
        assert [len(block.ms) for block in timing.blocks] == [10, 10]
        assert all(ms > 0 for ms in timing.samples_ms) and timing.images_per_s > 0
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert not trt.driver.memory and not trt.driver.streams, "nothing is left on the device"
    assert not trt.driver.work, "no event and no graph is left"
    data = json.loads(json.dumps(result.as_dict()))
    assert data["device"] == "cuda" and "transfers excluded" in data["conditions"]["timed"]
    assert repr(result).startswith("CudaResult('cuda', ") and "<table>" in result._repr_html_()


def test_a_graph_that_cannot_be_captured_is_timed_without_one(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(exported, tmp_path, plan=threshold_ladder(), dispatch="host")
    trt = fake_gpu(monkeypatch)
    put_engines(bundle)
    trt.driver.uncapturable = True
    result = bench_cuda(bundle, **FEW)
    assert {timing.part for timing in result.measured} == {"stem", "b0", "b1", "full"}
    assert not any(timing.cuda_graph for timing in result.measured)
    said = [warning for warning in result.warnings if "has no CUDA graph" in warning]
    assert len(said) == 4 and all("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" in warning for warning in said)
    with open_bundle(bundle) as session:
        pixels = random_pixels(CONFIG, 2)
        session.run(pixels), session.run(pixels)
        assert any("runs without a CUDA graph" in warning for warning in session.warnings)


def test_fp32_is_not_rounded_to_tf32_unless_asked(
    exported: Exported, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu(monkeypatch)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [sessions.PROVIDER])
    given: list[dict[str, str]] = []

    def refuse(graph: str, options: Any, providers: Any) -> Any:
        given.append(providers[0][1])
        raise RuntimeError("no GPU")

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    for tf32 in (False, True):
        with pytest.raises(BundleError, match="no GPU"):
            bench_cuda(tiny_bundle, tf32=tf32)
    assert [settings["use_tf32"] for settings in given] == ["0", "1"]
    with pytest.raises(TargetError, match=r"got TF32 for .*, whose engines were built without it"):
        bench_cuda(bundle_of(exported, tmp_path), tf32=True)
    with pytest.raises(ConfigError, match="tf32: device 'cpu' does not have this"):
        bench(tiny_bundle, tf32=True)
    assert "--tf32: for --device cuda; got device 'cpu'" in refused("bench", tiny_bundle, "--tf32")


def test_a_report_says_how_each_was_run() -> None:
    timing = Timing(
        "b", 8, (Block((1.0, 2.0)), Block((3.0,))), "b", "model", "TensorRT 10.3.0 on Orin", True, False
    )
    text = cuda_report(CudaResult("cuda", (timing,), {"timed": "by events"})).markdown()
    assert "TensorRT 10.3.0 on Orin" in text and "by events" in text
    assert "| 2.000 |" in text and timing.images_per_s == pytest.approx(8 * 3 / 6e-3)


def test_what_cannot_be_measured(
    exported: Exported, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(exported, tmp_path)
    with pytest.raises(TargetError, match=r"is for trt.*--device cuda"):
        bench(bundle)
    with pytest.raises(ConfigError, match="threads, starts: device 'cuda' does not have this"):
        bench(bundle, device="cuda", threads=2, starts=1)
    fake_gpu(monkeypatch)
    for measure in (bench_cuda, partial(bench, device="cuda")):
        with pytest.raises(BundleError, match="no engines yet"):
            measure(bundle)
    put_engines(bundle)
    for options, says in (
        ({"batches": [8]}, r"got batches \[8\], but .* was exported for batch 1"),
        ({"runs": 3}, "got 3 runs"),
        ({"blocks": 0}, "0 blocks"),
    ):
        with pytest.raises(TargetError, match=says):
            bench_cuda(bundle, **options)
    with pytest.raises(TargetError, match="got no bundle"):
        bench_cuda([])
    monkeypatch.setattr(build, "this_device", lambda: None)
    with pytest.raises(TargetError, match=r"TensorRT 10.3.0 sees no GPU here"):
        bench_cuda(bundle)


def test_onnx_runtime_never_falls_back(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        TargetError, match=r"no CUDA provider here, only CPUExecutionProvider; run `.*onnxruntime-gpu"
    ):
        bench_cuda(tiny_bundle)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [sessions.PROVIDER])
    real = ort.InferenceSession

    def without_libraries(graph: str, options: Any, providers: Any) -> Any:
        assert providers[0][0] == sessions.PROVIDER
        return real(graph, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", without_libraries)
    with pytest.raises(TargetError, match=r"fell back to CPUExecutionProvider.*nothing was measured"):
        bench_cuda(tiny_bundle)


def test_without_a_gpu_the_command_says_what_is_missing(tiny_bundle: Path) -> None:
    if build.this_device() is not None:
        pytest.skip("there is a GPU here")
    message = refused("bench", tiny_bundle, "--device", "cuda")
    assert "cuda" in message.lower()
    assert "--verdict and --threads are for --device cpu" in refused(
        "bench", tiny_bundle, "--device", "cuda", "--threads", "1"
    )


@pytest.mark.gpu
def test_a_real_gpu_is_timed(exported: Exported, tiny_bundle: Path) -> None:
    if build.this_device() is None:
        pytest.skip("no NVIDIA driver answers: nothing can be timed")
    if sessions.PROVIDER not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider")
    assert all(timing.samples_ms for timing in bench_cuda(tiny_bundle, **FEW).measured)
