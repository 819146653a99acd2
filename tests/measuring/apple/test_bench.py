"""Apple's bench over a played Core ML: parity, blocks, mix, placement, result; and the checklist and conditions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptive_plans import threshold_plan
from fake_coreml import Played, answers_of, coreml_bundle
from tiny_models import make_config

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.errors import AnswerError, BundleError, MorvitError, ParityError, TargetError
from morvit_deploy.exporters.coreml.sdk.bundle import Package, read_package
from morvit_deploy.exporters.functions.devices import TOLERANCE, oldest_macos
from morvit_deploy.measuring.apple.bench import PICTURES, _golden, find_goldens, interpreted
from morvit_deploy.measuring.apple.checklist import MacState, Phone, demand, mac_items, phone_items, the_phone
from morvit_deploy.measuring.apple.conditions import power
from morvit_deploy.measuring.apple.dispatching import UNITS, chosen_units, predict
from morvit_deploy.measuring.apple.goldens import (
    Golden,
    Goldens,
    agreement,
    quota,
    read_golden,
    write_goldens,
)
from morvit_deploy.measuring.apple.measure import CoreMl
from morvit_deploy.measuring.apple.outcome import AppleMeasured
from morvit_deploy.measuring.apple.placement import CPU, GPU, NE, NOT_TOLD, PlacedOp, place
from morvit_deploy.measuring.apple.running import CUT, FAILED, Wish, exit_status, measure_on
from morvit_deploy.measuring.apple.views import apple_report
from morvit_deploy.measuring.core.inputs import Source
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.mix.latency import samples_of
from morvit_deploy.timing.loop import Stages

CONFIG = make_config()
PLAN = threshold_plan(CONFIG, (0.0, 0.0, 0.0), [(8, 5, 3)], [9])
QUICK: dict[str, Any] = {"runs": 10, "blocks": 2, "warmup": 1}


@pytest.fixture(scope="module")
def source(exported: Callable[..., Path]) -> Path:
    """An adaptive onnx bundle: stem, b0 and full."""
    return exported(CONFIG, plan=PLAN, dispatch="host", batch=1)


@pytest.fixture(scope="module")
def bundle(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coreml_bundle(source, tmp_path_factory.mktemp("coreml") / "bundle")


@pytest.fixture(scope="module")
def package(bundle: Path) -> Package:
    return read_package(bundle)


@pytest.fixture(scope="module")
def goldens(source: Path, bundle: Path) -> Goldens:
    return find_goldens(open_manifest(bundle), Source(), answers_of(source))


def measure(
    backend: Played, goldens: Goldens, *units: str, device: str = "mac", **wishes: Any
) -> BenchResult:
    wish = Wish(device, units or ("all", "cpu"), **QUICK | wishes)
    device = CoreMl(backend.package, backend, goldens, Stages())
    return measure_on(device, wish, None, inputs="synthetic pictures")


# units, package


def test_units() -> None:
    assert chosen_units([]) == chosen_units(["cpu", "compare"]) == tuple(UNITS)
    assert chosen_units(["cpu", "all", "cpu"]) == ("cpu", "all")
    with pytest.raises(TargetError, match=r"got npu, expected all, cpu_ne, cpu_gpu, cpu, or compare"):
        chosen_units(["npu"])


def test_package_is_what_the_manifest_says(bundle: Path, package: Package) -> None:
    manifest = open_manifest(bundle)
    assert package.functions == ("stem", "b0", "full") and package.adaptive
    assert package.macs == manifest.macs and package.path == bundle / "MoRViT.mlpackage"
    assert package.carried == tuple(port.name.replace(".", "_") for port in manifest.carried)
    assert any("." in port.name for port in manifest.carried)  # or the line above shows nothing
    assert package.file_bytes == sum(p.stat().st_size for p in package.path.rglob("*") if p.is_file())


def test_pictures_as_arrays(package: Package) -> None:
    from morvit_deploy.bundle.pixels import normalise

    pixels = np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)
    raw = package.array(pixels)
    assert raw.dtype == np.float32 and raw.shape == (1, 3, 32, 32) and raw[0, 2, 1, 0] == pixels[1, 0, 2]
    wanted = normalise(pixels[None], CONFIG.preprocess)
    np.testing.assert_array_equal(replace(package, input="float").array(pixels), wanted)


def test_other_targets_are_refused_with_the_line_to_type(source: Path) -> None:
    with pytest.raises(TargetError, match=r"target 'onnx'.*export CHECKPOINT --target coreml"):
        read_package(source)


def test_edited_package_is_refused(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    weights = next(copy.rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"weight\.bin: content differs"):
        read_package(copy)
    weights.unlink()
    with pytest.raises(BundleError, match=r"weight\.bin: missing"):
        read_package(copy)
    manifest = copy / "manifest.json"
    known = json.loads(manifest.read_text())
    known["files"][0]["path"] = "../x.mlpackage/y"
    manifest.write_text(json.dumps(known))
    with pytest.raises(BundleError, match="leaves the bundle"):
        read_package(copy)
    del known["plan"]
    manifest.write_text(json.dumps(known))
    with pytest.raises(BundleError, match="'plan'"):
        read_package(copy)


def test_macos_of_the_same_year() -> None:
    assert [oldest_macos(ios) for ios in (17, 18, 26)] == [14, 15, 26]


# dispatch


def test_dispatch_is_that_of_the_bundle(source: Path, package: Package, goldens: Goldens) -> None:
    """Logits, bucket and overflow of every picture, and an overflowed one pays for both trunks."""
    backend = Played(source, package)
    functions = {name: backend.open(name, "all") for name in package.functions}
    from morvit_deploy.bundle.pixels import synthetic_images

    pixels = synthetic_images(64, 32)
    expected = answers_of(source)(pixels, None)
    assert expected["overflow"].any() and set(expected["bucket"]) == {0, 1}  # or too little is tried
    for number, one in enumerate(pixels):
        got = predict(package, functions, backend.picture(one))
        np.testing.assert_allclose(got.logits, expected["logits"][number], atol=1e-5)
        assert got.bucket == PLAN.buckets[expected["bucket"][number]].name
        assert got.overflow == expected["overflow"][number]
        parts = {"b0"} if got.bucket == "b0" else {"b0", "full"} if got.overflow else {"full"}
        assert got.fed.keys() == {"stem", *parts}
        assert round(got.ms) == {1: 3, 2: 7}[len(parts)] if parts != {"full"} else round(got.ms) == 5


def test_forced_bucket_does_not_run_another(source: Path, package: Package) -> None:
    from morvit_deploy.bundle.pixels import synthetic_images

    backend = Played(source, package)
    functions = {name: backend.open(name, "all") for name in package.functions}
    pixels = synthetic_images(64, 32)
    over = int(np.flatnonzero(answers_of(source)(pixels, None)["overflow"])[0])
    got = predict(package, functions, backend.picture(pixels[over]), "b0")
    assert got.bucket == "b0" and not got.overflow and got.fed.keys() == {"stem", "b0"}
    np.testing.assert_allclose(
        got.logits, answers_of(source)(pixels[over][None], "b0")["logits"][0], atol=1e-5
    )


# goldens


def test_goldens_choose_their_bucket(source: Path, bundle: Path, goldens: Goldens) -> None:
    for number, (name, golden) in enumerate(goldens.buckets.items()):
        assert golden.chosen and len(golden.pixels) == PICTURES
        assert (answers_of(source)(golden.pixels, None)["bucket"] == number).all(), name


def test_goldens_survive_their_file(goldens: Goldens, tmp_path: Path) -> None:
    write_goldens(goldens, tmp_path / "golden")
    for name, golden in goldens.buckets.items():
        back = read_golden(tmp_path / "golden" / f"{name}.npz")
        np.testing.assert_array_equal(back.pixels, golden.pixels)
        np.testing.assert_array_equal(back.logits, golden.logits)
        assert back.chosen == golden.chosen


def test_goldens_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "b0.npz", pixels=np.array([{}], dtype=object), logits=np.zeros(1), chosen=True)
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04 no archive")
    for name in ("b0", "no"):
        with pytest.raises(BundleError, match="write the project again"):
            read_golden(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_damaged_goldens_are_one_message(tmp_path: Path, place: float) -> None:
    """Bytes inside the compressed pixels: zlib or the checksum reports them."""
    path = tmp_path / "b0.npz"
    pixels = np.random.default_rng(0).integers(0, 9, (4, 8, 8, 3), dtype=np.uint8)
    np.savez_compressed(path, pixels=pixels, logits=np.zeros(1), chosen=True)
    content = bytearray(path.read_bytes())
    start = int(400 * place)
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(BundleError, match="write the project again"):
        read_golden(path)


def test_stream_has_the_plans_shares() -> None:
    golden = Golden(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3), np.float32), True)
    many = Goldens(
        {"b0": golden, "b1": golden, "full": replace(golden, chosen=False)}, {"b0": 0.7, "b1": 0.3}, ""
    )
    stream = many.stream(10)
    assert sorted(stream) == sorted([("b0", i % 2) for i in range(7)] + [("b1", i % 2) for i in range(3)])
    assert stream == many.stream(10) != sorted(stream)  # in a fixed order that mixes them
    even = replace(many, shares={}).stream(10)
    assert [name for name, _ in even].count("b0") == 5 and "full" not in dict(even)
    assert quota({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 10) in (
        {"a": 4, "b": 3, "c": 3},
        {"a": 3, "b": 4, "c": 3},
        {"a": 3, "b": 3, "c": 4},
    )


def test_the_median_picture_is_judged() -> None:
    """A flipped token moves one picture and is let through; wrong arithmetic moves them all; NaN is never right."""
    logits = np.random.default_rng(0).normal(0, 3, (5, 10)).astype(np.float32)
    golden = Golden(np.zeros((5, 4, 4, 3), np.uint8), logits, True)
    flipped = [logits[0] + 2.0, *logits[1:]]
    assert agreement(list(logits), golden, "fp32").agrees and agreement(flipped, golden, "fp16").agrees
    assert not agreement(list(logits[:, ::-1]), golden, "fp16").agrees
    assert not agreement([logits[0] * np.nan, *logits[1:]], golden, "fp16").agrees
    for precision, tolerance in TOLERANCE.items():
        near, far = (
            logits + factor * tolerance * np.abs(logits).max(1, keepdims=True) for factor in (0.9, 1.1)
        )
        assert agreement(list(near), golden, precision).agrees
        assert not agreement(list(far), golden, precision).agrees


# measuring


def test_result_speaks_bench(source: Path, package: Package, goldens: Goldens) -> None:
    backend = Played(source, package)
    result = measure(backend, goldens)
    data = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert data["format"] == "morvit-bench/1" and data["device"] == "mac" and CUT not in data["conditions"]
    one, other = data["bundles"]
    assert (one["compute_units"], other["compute_units"]) == ("all", "cpu")
    assert one["bundle"] == f"{package.folder} [all]" and one["target"] == "coreml"
    assert one["starts"][0]["load_ms"] == 12.0  # three functions again, 4 ms each
    assert one["cold_start_ms"] == pytest.approx(120 + one["first_run_ms"])
    assert data["ratios"][0]["of"] == one["bundle"] and data["ratios"][0]["statistic"] == "mean"
    assert [len(block["ms"]) for block in one["blocks"]] == [10, 10]
    assert [len(block["warmup_ms"]) for block in one["blocks"]] == [1, 1]
    for name, ms in {"stem": 1, "b0": 2, "full": 4}.items():
        function = one["functions"][name]
        assert function["load_ms"] == {"first": 40.0, "again": 4.0}
        assert [len(block["ms"]) for block in function["blocks"]] == [10, 10]
        assert round(function["latency_ms"]["p50"]) == ms
    assert one["parity"]["full"]["agrees"] and one["parity"]["full"]["top1"] == 1.0
    assert all(function.closed for function in backend.opened)


def test_mix_adds_stem_and_trunk(source: Path, package: Package, goldens: Goldens) -> None:
    one = measure(Played(source, package), goldens, "all").measured[0]
    assert one.mix is not None
    alone = {name: round(float(np.median(samples_of(blocks)))) for name, blocks in one.mix.alone.items()}
    assert alone == {"b0": 3, "full": 5}
    assert set(one.mix.kinds) >= {"b0"} and one.mix.fed.expected_ms is not None
    assert (
        one.mix.misprediction is not None and round(one.mix.misprediction["ms"]) == 3
    )  # b0 alone, stem included
    assert one.mix.switch is None and one.mix.as_dict()["switch"] is None


def test_calibrated_mix_weighs_by_the_plan(source: Path, package: Package, goldens: Goldens) -> None:
    shares = (0.75, 0.25)
    buckets = tuple(replace(b, share=s) for b, s in zip(package.plan.buckets, shares, strict=True))
    plan = replace(package.plan, buckets=buckets, calibration={"overflow": 0.0})
    told = replace(package, plan=plan)
    one = measure(Played(source, told), replace(goldens, shares={"b0": 0.75, "full": 0.25}), "all").measured[
        0
    ]
    assert one.mix is not None and one.mix.calibrated is not None
    assert one.mix.calibrated.expected_ms == pytest.approx(0.75 * 3 + 0.25 * 5, rel=0.05)


def test_one_bucket(exported: Callable[..., Path], tmp_path: Path) -> None:
    source = exported(CONFIG, batch=1)
    package = read_package(coreml_bundle(source, tmp_path / "one", ios=17))
    assert package.functions == ("main",) and not package.adaptive
    goldens = find_goldens(open_manifest(tmp_path / "one"), Source(), answers_of(source))
    result = measure(Played(source, package), goldens)
    one = result.measured[0]
    assert one.mix is None and round(one.latency_ms["p50"]) == 2 and one.gmacs_per_s is not None
    assert apple_report(result).markdown()


def test_expected_logits_are_the_interpreters(exported: Callable[..., Path], tmp_path: Path) -> None:
    """The package made by hand answers the mean of a picture, in halves."""
    folder = coreml_bundle(exported(CONFIG, batch=1), tmp_path / "one")
    manifest = open_manifest(folder)
    goldens = find_goldens(manifest, Source(), interpreted(folder, manifest))
    (golden,) = goldens.buckets.values()
    mean = golden.pixels.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(golden.logits, np.repeat(mean[:, None], 10, axis=1), rtol=1e-2)


def wrong_on_the_neural_engine(units: str, name: str, outputs: dict) -> dict:
    """As attention on the Neural Engine has been wrong."""
    wrong = units == "cpu_ne" and name == "full"
    return outputs | {"logits": -outputs["logits"]} if wrong else outputs


def test_units_that_return_wrong_logits_are_reported_and_the_others_measured(
    source: Path, package: Package, goldens: Goldens
) -> None:
    """The bucket and the units are named, nothing wrong is timed, and the exit status is that of a failed check."""
    backend = Played(source, package, spoil=wrong_on_the_neural_engine)
    result = measure(backend, goldens, "all", "cpu_ne", "cpu")
    assert [one.units for one in result.measured if isinstance(one, AppleMeasured)] == ["all", "cpu"]
    assert all(len(one.blocks) == 2 for one in result.measured)
    (failed,) = result.conditions[FAILED].items()
    assert failed[0] == "cpu_ne" and "returns wrong logits for bucket 'full'" in failed[1]["why"]
    assert exit_status(result) == 1 and "compute units cpu_ne failed" in result.warnings[0]
    assert "| cpu_ne |" in apple_report(result).markdown()
    assert all(function.closed for function in backend.opened)
    assert json.dumps(result.as_dict(), allow_nan=False)


@pytest.mark.parametrize("run", [0, 20, 60], ids=["loading", "compared", "timed"])
def test_units_that_fail_are_reported_and_the_others_measured(
    source: Path, package: Package, goldens: Goldens, run: int
) -> None:
    why = "Core ML failed: Error computing NN outputs"
    backend = Played(source, package, refuses=lambda units, at: why if (units, at) == ("cpu_ne", run) else "")
    result = measure(backend, goldens, "all", "cpu_ne", "cpu")
    assert [one.units for one in result.measured if isinstance(one, AppleMeasured)] == ["all", "cpu"]
    assert all(len(one.blocks) == 2 for one in result.measured)
    assert result.conditions[FAILED] == {"cpu_ne": {"why": why, "exit_status": 2}}
    assert exit_status(result) == 0, "a Mac without a Neural Engine is measured"


def test_an_error_if_all_units_fail(source: Path, package: Package, goldens: Goldens) -> None:
    with pytest.raises(TargetError, match=r"no choice .* could be measured:\n  - no all\n  - no cpu"):
        measure(Played(source, package, refuses=lambda units, at: f"no {units}"), goldens, "all", "cpu")
    backend = Played(source, package, spoil=wrong_on_the_neural_engine)
    with pytest.raises(
        ParityError, match=r"compute units 'cpu_ne' returns wrong logits for bucket 'full'"
    ) as raised:
        measure(backend, goldens, "cpu_ne")
    assert raised.value.exit_status == 1


def test_phone_takes_one_choice_at_a_time_and_keeps_what_it_has(
    source: Path, package: Package, goldens: Goldens
) -> None:
    whole = Played(source, package, device="iphone", together=False)
    assert len(measure(whole, goldens, "all", "cpu", device="iphone").measured) == 2
    lost = Played(source, package, device="iphone", together=False, lost_after=int(whole.runs * 0.7))
    result = measure(lost, goldens, "all", "cpu", device="iphone")
    assert next(one.units for one in result.measured if isinstance(one, AppleMeasured)) == "all"
    assert result.conditions[CUT] == {
        "why": "the phone stopped; unlock it, and measure again",
        "exit_status": 2,
    }
    assert "ended early" in result.warnings[0]
    assert json.dumps(result.as_dict(), allow_nan=False) and apple_report(result).markdown()


@pytest.mark.parametrize("part", [0.0, 0.05, 0.3, 0.5, 0.8, 0.99])
def test_lost_at_any_moment(source: Path, package: Package, goldens: Goldens, part: float) -> None:
    """Either nothing was measured and the error is raised, or whole blocks are kept."""
    whole = Played(source, package, together=False)
    measure(whole, goldens)
    lost = Played(source, package, together=False, lost_after=int(part * whole.runs))
    try:
        result = measure(lost, goldens)
    except MorvitError as error:
        assert "unlock it" in str(error) and part < 0.5
        return
    assert result.measured and CUT in result.conditions
    for one in result.measured:
        assert all(len(block.ms) == 10 for block in one.blocks)
        assert one.mix is not None and one.mix.as_dict()


def test_wrong_answers_after_a_measurement_keep_it(source: Path, package: Package, goldens: Goldens) -> None:
    def spoil(units: str, name: str, outputs: dict) -> dict:
        return (
            outputs | {"logits": outputs["logits"] * np.nan}
            if units == "cpu" and "logits" in outputs
            else outputs
        )

    backend = Played(source, package, together=False, spoil=spoil)
    result = measure(backend, goldens, "all", "cpu")
    assert len(result.measured) == 1 and exit_status(result) == 1
    assert CUT not in result.conditions and [*result.conditions[FAILED]] == ["cpu"]


def test_no_plan_is_a_warning(source: Path, package: Package, goldens: Goldens) -> None:
    result = measure(Played(source, package, no_plan="Core ML returns no compute plan"), goldens, "all")
    assert result.as_dict()["bundles"][0]["placement"] is None
    assert any("Core ML returns no compute plan" in warning for warning in result.warnings)


def test_tables(source: Path, package: Package, goldens: Goldens) -> None:
    text = apple_report(measure(Played(source, package), goldens, "all", "cpu")).markdown()
    for title in (
        "Warm latency",
        "Functions",
        "Over the mix",
        "Placement",
        "Neural Engine",
        "Parity",
        "Conditions",
    ):
        assert title in text
    assert "| all | stem | topk | 1 | 25.00 % | CPU | cannot run there |" in text
    assert (
        "| cpu | stem | linear" not in text.split("### What leaves")[1]
    )  # nothing leaves where it takes no part


@pytest.mark.parametrize(
    ("wishes", "message"),
    [({"runs": 9}, "runs: got 9"), ({"blocks": 0}, "blocks: got 0"), ({"warmup": -1}, "warmup: got -1")],
)
def test_too_little_is_refused(wishes: dict[str, int], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        _ = Wish("mac", ("all",), **wishes).amount


# placement


def test_placement_sums_operations_and_cost() -> None:
    ops = [
        PlacedOp("linear", "a", NE, (NE, CPU), 0.3),
        PlacedOp("topk", "b", CPU, (CPU,), 0.1),
        PlacedOp("gather", "c", CPU, (CPU, GPU), 0.05),
        PlacedOp("gather", "d", GPU, (CPU, GPU, NE), 0.05),
        PlacedOp("add", "e", CPU, (CPU, NE), None),
        PlacedOp("cast", "f", NOT_TOLD, (), 0.1),
    ]
    placement = place("b0", ops)
    assert placement.ops == {NE: 1, GPU: 1, CPU: 3, NOT_TOLD: 1}
    assert placement.cost == pytest.approx({NE: 0.5, GPU: 0.05 / 0.6, CPU: 0.25, NOT_TOLD: 0.1 / 0.6})
    assert [(left.operator, left.ops, left.could) for left in placement.left] == [
        ("gather", 2, False),
        ("topk", 1, False),
        ("add", 1, True),
    ]
    assert placement.left[0].to == (CPU, GPU)
    assert json.dumps(placement.as_dict())
    assert place("empty", []).cost[NE] == 0


# checklist and conditions

PHONE = Phone("Ada", "0001", "18.1", "connected", "enabled")
READY = MacState(
    "Darwin 24.0 arm64", "15.1", "9.0", True, True, "/usr/bin/xcodebuild", "/usr/bin/devicectl", (PHONE,)
)


def listed(items: list) -> str:
    with pytest.raises(TargetError) as raised:
        demand(items, "x", "The way out.")
    return str(raised.value)


def test_everything_there() -> None:
    demand(mac_items(READY, 18, True), "mac", "")
    demand(phone_items(READY, 18, None), "iphone", "")
    assert the_phone(READY.phones or (), None) == PHONE


@pytest.mark.parametrize(
    ("lack", "ios", "says"),
    [
        (
            {"macos": None, "system": "Linux 6 x86_64"},
            18,
            "MISSING macOS 15 or newer, for a package of iOS 18: this is Li",
        ),
        ({"macos": "14.7"}, 18, "14.7; update it to 15 or newer, or export again with --ios 17"),
        (
            {"macos": "13.2"},
            17,
            "MISSING macOS 14 or newer, for a package of iOS 17: 13.2; update it to 14 or newer",
        ),
        (
            {"coremltools": None, "bridge": False},
            18,
            'not installed; python -m pip install "coremltools>=9.0,<10"',
        ),
        ({"coremltools": "8.3"}, 18, "MISSING coremltools 9: 8.3"),
        ({"bridge": False}, 18, "MISSING coremltools' bridge to Core ML: does not load"),
        ({"pillow": False}, 18, "MISSING Pillow"),
    ],
)
def test_mac_lacks(lack: dict[str, Any], ios: int, says: str) -> None:
    message = listed(mac_items(replace(READY, **lack), ios, True))
    assert says in message and message.endswith("The way out.")


@pytest.mark.parametrize(
    ("lack", "wanted", "says"),
    [
        ({"macos": None, "system": "Linux"}, None, "MISSING macOS, to reach an iPhone from: this is Linux"),
        ({"xcodebuild": None}, None, "MISSING xcodebuild: not found; install Xcode"),
        ({"devicectl": None, "phones": None}, None, "not looked for, as the tools above are missing"),
        ({"phones": None, "phones_problem": "devicectl says no"}, None, "devicectl says no"),
        ({"phones": ()}, None, "no iPhone is known to this Mac; connect one by cable"),
        ({}, "Bob", "no iPhone is called 'Bob'; there are: Ada (0001, iOS 18.1, connected)"),
        ({"phones": (replace(PHONE, state="unavailable"),)}, None, "none is connected: Ada"),
        (
            {"phones": (PHONE, replace(PHONE, name="Eve", udid="0002"))},
            None,
            "2 iPhones are connected, choose one with --phone",
        ),
        ({"phones": (replace(PHONE, developer_mode="disabled"),)}, None, "turn it on in Settings"),
        (
            {"phones": (replace(PHONE, system="17.5"),)},
            None,
            "iOS 17.5, the package requires iOS 18; update it, or",
        ),
    ],
)
def test_phone_lacks(lack: dict[str, Any], wanted: str | None, says: str) -> None:
    assert says in listed(phone_items(replace(READY, **lack), 18, wanted))


def test_one_of_two_phones_by_name_or_udid() -> None:
    eve = replace(PHONE, name="Eve", udid="0002")
    for wanted in ("Eve", "0002"):
        assert the_phone((PHONE, eve), wanted) == eve
        demand(phone_items(replace(READY, phones=(PHONE, eve)), 18, wanted), "iphone", "")


def test_power() -> None:
    battery = "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=1)\t80%; discharging"
    assert power(battery, " standby 1\n lowpowermode         1\n") == {
        "source": "Battery Power",
        "low_power_mode": True,
    }
    assert power("Now drawing from 'AC Power'", " powermode 0") == {
        "source": "AC Power",
        "low_power_mode": False,
    }
    assert power("?", "?") == {"source": None, "low_power_mode": None}
    assert power(None, "") is None


def test_expected_logits_that_are_not_finite_are_an_error() -> None:
    pixels = synthetic_images(2, 32)
    logits = np.array([[0.0, np.nan], [0.0, 1.0]], dtype=np.float32)
    with pytest.raises(AnswerError, match="expected logits of bucket main: got NaN or Inf in 1 of 4"):
        _golden(pixels, None, True, lambda pixels, bucket: {"logits": logits})
