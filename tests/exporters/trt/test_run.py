"""The TensorRT runner up to the CUDA calls, over a made-up GPU; and what it says without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket_plans import threshold_ladder
from fake_cuda import GPU, fake_gpu, put_engines
from tiny_models import make_config, random_pixels

from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.agent.trt import driver as agent_driver
from morvit_deploy.agent.trt import run as agent_run
from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.exporters.trt.engine import Cuda
from morvit_deploy.exporters.verification import verify

Exported = Callable[..., Path]
CONFIG = make_config()
SAME = 1e-6  # the same graph by the same ONNX Runtime, whole or in parts
CASES: dict[str, dict[str, Any]] = {
    "one bucket": {},
    "one bucket, batch 3": {"batch": 3},
    "self-dispatching": {"plan": threshold_ladder(), "dispatch": "graph"},
    "host": {"plan": threshold_ladder(), "dispatch": "host"},
    "host, batch 2": {"plan": threshold_ladder(), "dispatch": "host", "batch": 2},
    "dynamic": {"batch": "dynamic", "max_batch": 4},
}


@pytest.fixture
def recipe(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """A bundle without engines, as it is where TensorRT is not installed; a copy to change."""

    def make(**options: Any) -> Path:
        bundle = exported(CONFIG, target="trt", precision="fp32", flavor="tensorrt", **options)
        copy = tmp_path / "trt"
        shutil.copytree(bundle.parent, copy)
        return copy / "bundle"

    yield make


@pytest.mark.parametrize("case", CASES)
def test_engines_answer_as_their_graphs(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    bundle, pixels = recipe(**CASES[case]), random_pixels(CONFIG, 7)
    with open_bundle(bundle) as session:
        assert "there is no GPU here" in session.runner.runtime
        expected = session.run(pixels)
    trt = fake_gpu(monkeypatch)
    put_engines(bundle, batch=(1, 4, 4) if "dynamic" in case else 1)
    with open_bundle(bundle) as session:
        assert session.runner.runtime == "TensorRT 10.3.0 on Fake 4090"
        found = session.run(pixels)
        again = session.run(pixels)
    assert {*found} == {*expected}
    for name, value in expected.items():
        assert value.dtype == found[name].dtype
        np.testing.assert_allclose(found[name], value, atol=SAME, rtol=0)
        np.testing.assert_array_equal(found[name], again[name])
    fixed = case not in ("self-dispatching", "dynamic")
    assert (trt.driver.launches > 0) == fixed, (
        "a CUDA graph where shapes are fixed and nothing is conditional"
    )
    assert not trt.driver.memory and not trt.driver.streams, "closed sessions leave nothing on the device"


def test_a_bucket_alone_and_the_values_inside(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = recipe(plan=threshold_ladder(), dispatch="host")
    fake_gpu(monkeypatch)
    put_engines(bundle)
    pixels = random_pixels(CONFIG, 2)
    with open_bundle(bundle, bucket="b0") as session:
        alone = session.run(pixels)
        assert "bucket" not in alone
    with open_bundle(bundle, bucket="b0", probes=True) as session:
        assert "values inside are ONNX Runtime's" in session.runner.runtime
        probed = session.run(pixels)
    np.testing.assert_allclose(alone["logits"], probed["logits"], atol=SAME)
    assert any(name.startswith("step1.") for name in probed)


@pytest.mark.parametrize("dispatch", ["graph", "host"])
def test_verify_runs_the_engines(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, dispatch: str
) -> None:
    bundle = recipe(plan=threshold_ladder(), dispatch=dispatch)
    fake_gpu(monkeypatch)
    put_engines(bundle)
    verification = verify(bundle, bundle.parent / "checkpoint")
    assert verification.passed, verification.failure


def test_without_a_gpu_it_says_who_answers(recipe: Callable[..., Path]) -> None:
    verification = verify((bundle := recipe()), bundle.parent / "checkpoint")
    assert verification.passed
    assert verification.runtime == (
        "ONNX Runtime on the CPU and on the same graph: there is no GPU here, so no engine was run"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tensorrt": "10.4.0"}, r"model\.engine: built with version 10\.4\.0, this is 10\.3\.0.*build\.py"),
        ({"flavor": "rtx"}, "the engines are for rtx, this runtime is tensorrt"),
        (
            {"device": {"name": "Orin", "compute_capability": "8.7"}},
            r"built for compute capability 8\.7 \(Orin\), this GPU has 8\.9",
        ),
        ({"engines": []}, "'model' was not built, there is: none"),
        ({"format": "another"}, "is not of format"),
    ],
    ids=["version", "flavor", "architecture", "missing", "format"],
)
def test_engines_of_elsewhere_are_refused(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str
) -> None:
    bundle = recipe()
    fake_gpu(monkeypatch)
    put_engines(bundle, **changes)
    with pytest.raises(BundleError, match=says):
        open_bundle(bundle)


def test_a_gpu_without_engines_or_runtime(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never ONNX Runtime in their place: with a GPU here its answers would pass for the engine's."""
    bundle = recipe()
    monkeypatch.setattr(trt_build, "this_device", lambda: GPU)
    with pytest.raises(TargetError, match=r"no TensorRT for this Python.*pip install tensorrt"):
        open_bundle(bundle)
    fake_gpu(monkeypatch)
    with pytest.raises(BundleError, match=r"no engines yet.*build\.py"):
        open_bundle(bundle)
    fake_gpu(monkeypatch, "10.0.1")
    with pytest.raises(TargetError, match=r"10.0.1 is too old, expected 10.3 or newer"):
        open_bundle(bundle)


@pytest.mark.parametrize("compatible", [False, True], ids=["of one version", "version-compatible"])
def test_only_a_version_compatible_engine_may_run_code_on_the_cpu(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, compatible: bool
) -> None:
    """Both of the package's runners: here, and the agent's on a device."""
    bundle = recipe()
    trt = fake_gpu(monkeypatch)
    put_engines(bundle, version_compatible=compatible)
    monkeypatch.setattr(agent_run, "this_device", lambda: GPU)
    with open_bundle(bundle):
        pass
    agent_run.Engines(bundle / "build", graphs=True).open("model").close()
    assert [runtime.engine_host_code_allowed for runtime in trt.runtimes] == [compatible] * 2


def test_what_tensorrt_says_is_told(recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = recipe()
    trt = fake_gpu(monkeypatch)
    put_engines(bundle)
    record = json.loads((bundle / "build" / "engines.json").read_text())
    (bundle / "build" / "model.engine").write_bytes(b"foreign")
    with pytest.raises(BundleError, match="sha256 differs"):
        open_bundle(bundle)
    record["engines"][0]["sha256"] = trt_build.hashlib.sha256(b"foreign").hexdigest()
    (bundle / "build" / "engines.json").write_text(json.dumps(record))
    with pytest.raises(BundleError, match=r"cannot load model: Error Code 1: Serialization.*build\.py"):
        open_bundle(bundle)
    put_engines(bundle)
    trt.refuses_to_run = True
    with open_bundle(bundle) as session, pytest.raises(TargetError, match="illegal memory access"):
        session.run(random_pixels(CONFIG, 1))
    trt.driver.room = 10
    with pytest.raises(
        TargetError, match="cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY; the GPU's memory is full"
    ):
        open_bundle(bundle)
    trt.driver.devices = 0
    with pytest.raises(TargetError, match="CUDA sees no GPU"):
        open_bundle(bundle)


def test_the_driver_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(agent_driver.ctypes, "CDLL", missing)
    with pytest.raises(TargetError, match=r"NVIDIA's driver \(libcuda\.so\.1: cannot open"):
        Cuda()
    monkeypatch.setattr(agent_driver.ctypes, "CDLL", lambda name: object())
    with pytest.raises(TargetError, match=r"has no cuInit: it is older than CUDA 11\.4"):
        Cuda()


@pytest.mark.gpu
def test_engines_on_a_real_gpu(exported: Exported) -> None:
    from morvit_deploy.exporters.trt.flavors import is_installed

    if trt_build.this_device() is None:
        pytest.skip("no NVIDIA driver answers: engines cannot be run")
    if not (is_installed("tensorrt") or is_installed("rtx")):
        pytest.skip("neither tensorrt nor tensorrt-rtx is installed")
    for options in CASES.values():
        bundle = exported(CONFIG, target="trt", precision="fp32", **options)
        assert verify(bundle, bundle.parent / "checkpoint").passed
