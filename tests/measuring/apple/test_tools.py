"""What Apple's bench calls in coremltools 9, against the installed classes: an API that is not there fails."""

from __future__ import annotations

import asyncio
import inspect
import platform
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, create_autospec, patch

import numpy as np
import pytest
from adaptive_plans import threshold_plan
from fake_coreml import coreml_bundle, save_package
from PIL import Image
from tiny_models import make_config

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreml.sdk.bundle import Package, read_package
from morvit_deploy.exporters.coreml.sdk.load import coremltools, quiet
from morvit_deploy.measuring.apple.checklist import Phone, read_state
from morvit_deploy.measuring.apple.dispatching import UNITS
from morvit_deploy.measuring.apple.mac import DEVICES, Mac, MacFunction, placed, variant
from morvit_deploy.measuring.apple.phone import IPhone, PhoneFunction, experimental_tools, list_phones
from morvit_deploy.measuring.apple.placement import CPU, NE, PlacedOp

CONFIG = make_config()
ADA = Phone("Ada", "0001", "18.1", "connected", "enabled")
NEEDS_MAC = (
    "Core ML runs only on macOS; elsewhere the layer below `measure.py` is tested against its signatures"
)

ct = coremltools()
remote, perf, wrappers = (
    getattr(experimental_tools(), name) for name in ("remote_device", "perf_utils", "async_wrapper")
)


@pytest.fixture(scope="module")
def source(exported: Callable[..., Path]) -> Path:
    plan = threshold_plan(CONFIG, (0.0, 0.0, 0.0), [(8, 5, 3)], [9])
    return exported(CONFIG, plan=plan, dispatch="host", batch=1)


@pytest.fixture(scope="module")
def package(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return read_package(coreml_bundle(source, tmp_path_factory.mktemp("coreml") / "bundle"))


# names and signatures


def test_units_are_coremltools_own() -> None:
    assert set(UNITS.values()) == {unit.name for unit in ct.ComputeUnit}


def test_devices_are_coremltools_own() -> None:
    assert all(hasattr(ct.models.compute_device, name) for name in DEVICES)


@pytest.mark.parametrize(
    ("called", "arguments"),
    [
        (ct.models.MLModel, {"model", "compute_units", "function_name", "skip_model_load", "weights_dir"}),
        (ct.models.CompiledMLModel, {"path", "compute_units", "function_name"}),
        (ct.models.utils.compile_model, {"model", "destination_path"}),
        (ct.models.compute_plan.MLComputePlan.load_from_path, {"path", "compute_units"}),
        (remote.AppSigningCredentials, {"development_team"}),
        (remote.Device.prepare_for_model_debugging, {"credentials"}),
        (perf.MLModelBenchmarker, {"model", "device"}),
        (perf.MLModelBenchmarker.benchmark_load, {"iterations"}),
        (perf.MLModelBenchmarker.benchmark_predict, {"inputs", "iterations", "warmup"}),
        (
            wrappers.MLModelAsyncWrapper.from_spec_or_path,
            {"spec_or_path", "weights_dir", "compute_units", "function_name", "device"},
        ),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_arguments_exist(called: Any, arguments: set[str]) -> None:
    assert arguments <= set(inspect.signature(called).parameters)


def test_what_is_awaited_is_a_coroutine() -> None:
    remote_wrapper = wrappers.RemoteMLModelAsyncWrapper
    for method in (
        remote.Device.prepare_for_model_debugging,
        perf.MLModelBenchmarker.benchmark_load,
        perf.MLModelBenchmarker.benchmark_predict,
        remote_wrapper.load,
        remote_wrapper.predict,
        remote_wrapper.unload,
        remote_wrapper.retrieve_compute_plan,
    ):
        assert inspect.iscoroutinefunction(method)


def test_what_is_read_exists() -> None:
    for owner, names in {
        ct.models.MLModel: ("load_duration_in_nano_seconds", "last_predict_duration_in_nano_seconds"),
        wrappers.RemoteMLModelAsyncWrapper: (
            "load_duration_in_nano_seconds",
            "last_predict_duration_in_nano_seconds",
        ),
    }.items():
        assert all(isinstance(inspect.getattr_static(owner, name), property) for name in names)
    assert callable(ct.models.MLModel.get_compiled_model_path)
    fields = {"name", "udid", "os_version", "state", "developer_mode_state", "type", "session"}
    assert fields <= set(remote.Device.__dataclass_fields__)
    assert callable(remote._AppSession.stop)
    assert set(perf.MLModelBenchmarker.Measurement.__dataclass_fields__) >= {"samples"}


# packages as the tools want them


@pytest.mark.parametrize("function", ["stem", "b0", "full"])
def test_variant_changes_only_the_description(package: Package, tmp_path: Path, function: str) -> None:
    file = tmp_path / "v.mlpackage"
    variant(ct, package.path, file, function=function, arrays=True)
    with quiet():
        before = ct.models.MLModel(str(package.path), skip_model_load=True).get_spec()
        after = ct.models.MLModel(str(file), skip_model_load=True).get_spec()
    assert after.description.defaultFunctionName == function
    inputs = [feature for own in after.description.functions for feature in own.input]
    assert inputs
    for feature in inputs:
        assert list(feature.type.multiArrayType.shape) == [1, 3, 32, 32]
    assert after.mlProgram == before.mlProgram
    weights = [next(p.rglob("weight.bin")).read_bytes() for p in (package.path, file)]
    assert weights[0] == weights[1]


def test_variant_leaves_pictures_where_it_may(package: Package, tmp_path: Path) -> None:
    changed = variant(ct, package.path, tmp_path / "v.mlpackage", function=None, arrays=False)
    with quiet():
        assert changed.get_spec() == ct.models.MLModel(str(package.path), skip_model_load=True).get_spec()


def test_array_of_a_variant_is_what_its_program_takes(package: Package, tmp_path: Path) -> None:
    changed = variant(ct, package.path, tmp_path / "v.mlpackage", function=None, arrays=True)
    program = changed.get_spec().mlProgram.functions["stem"].inputs[0].type.tensorType
    array = package.array(np.zeros((32, 32, 3), np.uint8))
    assert [d.constant.size for d in program.dimensions] == list(array.shape)
    assert program.dataType == ct.proto.MIL_pb2.DataType.FLOAT32 and array.dtype == np.float32


# the Mac


@pytest.fixture
def core_ml() -> Any:
    """coremltools whose models answer, by the signatures of its own."""
    model = create_autospec(ct.models.MLModel, instance=True)
    model.__proxy__ = object()
    model.load_duration_in_nano_seconds, model.last_predict_duration_in_nano_seconds = 5_000_000, 1_500_000
    model.predict.return_value = {"logits": np.ones((1, 10), np.float32)}
    model.get_compiled_model_path.return_value = "/tmp/a.mlmodelc"
    models = SimpleNamespace(
        MLModel=create_autospec(ct.models.MLModel, return_value=model),
        CompiledMLModel=create_autospec(ct.models.CompiledMLModel),
    )
    return SimpleNamespace(ComputeUnit=ct.ComputeUnit, models=models, model=model)


def test_mac_function(core_ml: Any) -> None:
    function = MacFunction(core_ml, Path("/b/M.mlpackage"), "b0", "cpu_ne")
    core_ml.models.MLModel.assert_called_once_with(
        "/b/M.mlpackage", compute_units=ct.ComputeUnit.CPU_AND_NE, function_name="b0"
    )
    assert function.load_ms == 5.0
    feeds = {"x": np.zeros(1, np.float16)}
    assert function.run(feeds).ms == 1.5 and function.times(feeds, 3) == [1.5] * 3
    assert core_ml.model.predict.call_args.args[0] is not feeds  # coremltools changes what it is given
    assert function.reload() >= 0
    core_ml.models.CompiledMLModel.assert_called_once_with(
        "/tmp/a.mlmodelc", compute_units=ct.ComputeUnit.CPU_AND_NE, function_name="b0"
    )


@pytest.mark.skipif(platform.system() == "Darwin", reason="there it loads")
def test_model_that_does_not_load_is_told(package: Package) -> None:
    """The real class off macOS: it neither raises nor answers."""
    with pytest.raises(TargetError, match="Core ML cannot load stem for cpu"):
        MacFunction(ct, package.path, "stem", "cpu")


def test_one_function_is_not_named(package: Package, tmp_path: Path) -> None:
    from dataclasses import replace

    assert Mac(package, tmp_path)._named("b0") == "b0"
    assert Mac(replace(package, functions=("main",)), tmp_path)._named("main") is None


def test_compute_plan_is_read_with_nested_blocks() -> None:
    plans, devices = ct.models.compute_plan, ct.models.compute_device

    def operation(name: str, *blocks: Any) -> Any:
        output = plans.MLModelStructureProgramNamedValueType(f"{name}_0", None)
        return plans.MLModelStructureProgramOperation({}, name, [output], list(blocks), None)

    inner = operation("topk")
    block = plans.MLModelStructureProgramBlock([], [inner], [])
    ops = [operation("const"), operation("linear"), operation("cond", block), operation("cast")]
    body = plans.MLModelStructureProgramBlock([], ops, [])
    program = plans.MLModelStructureProgram({"b0": plans.MLModelStructureProgramFunction([], body)})
    ne, cpu = (
        object.__new__(kind) for kind in (devices.MLNeuralEngineComputeDevice, devices.MLCPUComputeDevice)
    )
    usage = {
        "linear": plans.MLComputePlanDeviceUsage(ne, [ne, cpu]),
        "topk": plans.MLComputePlanDeviceUsage(cpu, [cpu]),
    }
    cost = {"linear": plans.MLComputePlanCost(0.75), "cast": plans.MLComputePlanCost(0.25)}
    plan = create_autospec(plans.MLComputePlan, instance=True)
    plan.model_structure = plans.MLModelStructure(None, program, None)
    plan.get_compute_device_usage_for_mlprogram_operation.side_effect = lambda operation: usage.get(
        operation.operator_name
    )
    plan.get_estimated_cost_for_mlprogram_operation.side_effect = lambda operation: cost.get(
        operation.operator_name
    )
    assert list(placed(plan, "b0")) == [
        PlacedOp("linear", "linear_0", NE, (NE, CPU), 0.75),
        PlacedOp("topk", "topk_0", CPU, (CPU,), None),
        PlacedOp("cast", "cast_0", "not told", (), 0.25),
    ]
    with pytest.raises(TargetError, match="no function 'b9'"):
        list(placed(plan, "b9"))


def test_placement_off_macos_is_told(package: Package, tmp_path: Path) -> None:
    if platform.system() == "Darwin":
        pytest.skip("there it works")
    mac = Mac(package, tmp_path)
    with (
        patch.object(mac._ct.models.utils, "compile_model", autospec=True, return_value="/tmp/x.mlmodelc"),
        pytest.raises(TargetError, match="returns no compute plan of b0"),
    ):
        mac.placement("b0", "all")


# the phone


def device(name: str = "Ada", udid: str = "0001", kind: Any = None, state: Any = None) -> Any:
    return remote.Device(
        name=name,
        type=kind or remote.DeviceType.IPHONE,
        identifier=f"id-{udid}",
        udid=udid,
        os_version="18.1",
        os_build_number="22B83",
        developer_mode_state="enabled",
        state=state or remote.DeviceState.CONNECTED,
        session=None,
    )


def test_phones_are_listed() -> None:
    found = [
        device(),
        device("Pad", "0002", remote.DeviceType.IPAD),
        device("Eve", "0003", state=remote.DeviceState.UNAVAILABLE),
    ]
    with patch.object(remote.Device, "get_devices", return_value=found):
        assert list_phones("/usr/bin/devicectl") == (
            ADA,
            Phone("Eve", "0003", "18.1", "unavailable", "enabled"),
        )


@pytest.mark.skipif(platform.system() == "Darwin", reason="there is a devicectl there")
def test_devicectl_that_is_not_there_is_told() -> None:
    """The real Device.get_devices."""
    with pytest.raises(TargetError, match=r"devicectl cannot list devices.*devicectl"):
        list_phones("/usr/bin/devicectl")


@pytest.fixture
def phone(package: Package, tmp_path: Path) -> Any:
    """An IPhone whose coremltools answers, by the signatures of its own; what it was asked is in `phone.asked`."""
    asked = create_autospec(wrappers.RemoteMLModelAsyncWrapper, instance=True)
    asked.load_duration_in_nano_seconds, asked.last_predict_duration_in_nano_seconds = 9_000_000, 2_000_000
    asked.predict.return_value = {"logits": np.ones((1, 10), np.float32)}
    timed = create_autospec(perf.MLModelBenchmarker, instance=True)
    samples = perf.MLModelBenchmarker.Measurement.from_samples
    timed.benchmark_load.return_value = samples([3.0])
    timed.benchmark_predict.return_value = samples([2.0, 2.5])
    ready = device()
    prepared = Mock(session=create_autospec(remote._AppSession, instance=True))

    async def prepare(
        self: Any, credentials: Any = None, working_directory: Any = None, clean: bool = False
    ) -> Any:
        prepared.credentials = credentials
        return prepared

    with (
        patch.object(remote.Device, "get_devices", return_value=[ready]),
        patch.object(remote.Device, "prepare_for_model_debugging", prepare),
        patch.object(
            wrappers.MLModelAsyncWrapper,
            "from_spec_or_path",
            create_autospec(wrappers.MLModelAsyncWrapper.from_spec_or_path, return_value=asked),
        ) as made,
        patch.object(
            perf, "MLModelBenchmarker", create_autospec(perf.MLModelBenchmarker, return_value=timed)
        ) as timer,
    ):
        one = IPhone(package, tmp_path, ADA, "TEAM1")
        yield SimpleNamespace(device=one, asked=asked, timed=timed, made=made, timer=timer, prepared=prepared)
        one.close()
    prepared.session.stop.assert_called_once_with()


def test_phone_function(phone: Any) -> None:
    assert phone.prepared.credentials == remote.AppSigningCredentials(development_team="TEAM1")
    function = phone.device.open("b0", "cpu_ne")
    assert function.load_ms == 9.0
    (spec,) = phone.made.call_args.args
    said = phone.made.call_args.kwargs
    assert spec.description.defaultFunctionName == "b0" and said["device"] is phone.prepared
    assert (said["function_name"], said["compute_units"]) == ("b0", ct.ComputeUnit.CPU_AND_NE)
    assert {f.type.WhichOneof("Type") for own in spec.description.functions for f in own.input} == {
        "multiArrayType"
    }
    assert function.run({"x": np.zeros(1, np.float32)}).ms == 2.0
    assert function.times({"x": np.zeros(1, np.float32)}, 2) == [2.0, 2.5]
    phone.timed.benchmark_predict.assert_called_once()
    assert phone.timed.benchmark_predict.call_args.kwargs["iterations"] == 2
    assert function.reload() == 3.0
    function.close()
    phone.asked.unload.assert_awaited_once_with()


def test_phone_inputs_are_what_the_runner_can_send(phone: Any) -> None:
    """The runner's own transfer: a picture's uint8 would be refused, float32 travels."""
    service = remote._RemoteMLModelService
    array = phone.device.picture(np.zeros((32, 32, 3), np.uint8))
    values, file = service._prepare_data_for_transfer({"image": array})
    file.unlink()
    assert values["image"]["shape"] == [1, 3, 32, 32]
    with pytest.raises(ValueError, match="uint8 is not supported"):
        service._prepare_data_for_transfer({"image": np.zeros((1, 3, 2, 2), np.uint8)})


@pytest.mark.parametrize(
    "error", [remote._DeviceCtlError("device was locked"), KeyError("outputs"), OSError("gone")]
)
def test_lost_phone_is_told(phone: Any, error: Exception) -> None:
    function: PhoneFunction = phone.device.open("b0", "all")
    phone.asked.predict.side_effect = error
    with pytest.raises(TargetError, match=r"Ada failed at running b0: .*unlock it"):
        function.run({})
    phone.asked.unload.side_effect = error
    function.close()  # does not fail again


def test_phone_without_times_is_told(phone: Any) -> None:
    phone.asked.load_duration_in_nano_seconds = None
    with pytest.raises(TargetError, match="does not report its load time"):
        phone.device.open("b0", "all")


def test_phone_that_left_is_told(package: Package, tmp_path: Path) -> None:
    with (
        patch.object(remote.Device, "get_devices", return_value=[]),
        pytest.raises(TargetError, match="Ada is gone"),
    ):
        IPhone(package, tmp_path, ADA)


def test_runner_that_cannot_be_built_is_told(package: Package, tmp_path: Path) -> None:
    """The real preparation, on a machine without Xcode."""
    if platform.system() == "Darwin":
        pytest.skip("there may be an Xcode there")
    with (
        patch.object(remote.Device, "get_devices", return_value=[device()]),
        pytest.raises(
            TargetError, match=r"Ada failed at building and installing the runner app: .*xcodebuild"
        ),
    ):
        IPhone(package, tmp_path, ADA)


def test_real_device_that_is_not_connected_is_refused_by_coremltools() -> None:
    """Why the checklist asks for `connected`."""
    away = device(state=remote.DeviceState.AVAILABLE)
    with pytest.raises(ValueError, match="must be CONNECTED"):
        asyncio.run(away.prepare_for_model_debugging(credentials=None))


# this machine


def test_facts_of_this_machine() -> None:
    facts = read_state(phone=True)
    assert facts.coremltools == ct.__version__ and facts.pillow
    assert (facts.macos is not None) == (platform.system() == "Darwin")
    assert facts.bridge == (platform.system() == "Darwin")


@pytest.mark.macos
@pytest.mark.skipif(platform.system() != "Darwin", reason=NEEDS_MAC)
def test_core_ml_itself(tmp_path: Path) -> None:
    """A package of one function that answers the mean of its picture: run, timed, loaded again by Core ML."""
    save_package(tmp_path / "sum.mlpackage", ["main"], 8)
    function = MacFunction(ct, tmp_path / "sum.mlpackage", None, "cpu")
    picture = Image.fromarray(np.full((8, 8, 3), 2, np.uint8))
    reply = function.run({"image": picture})
    np.testing.assert_allclose(np.ravel(reply.outputs["logits"]), 2, rtol=1e-2)
    assert reply.ms > 0 and function.load_ms > 0 and function.reload() > 0
