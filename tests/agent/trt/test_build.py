"""The device's build recipe: TensorRT-RTX for real, on a CPU; classic TensorRT through a module with its names."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket_plans import threshold_ladder
from device_code import assert_standalone
from fake_tensorrt import fake_tensorrt
from tiny_models import make_config

import morvit_deploy.agent
from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.agent.trt import engines as trt_engines
from morvit_deploy.agent.trt.build import BuildError, BuildFailed, build

AGENT = Path(morvit_deploy.agent.__file__).parent
SCRIPT, ENGINES = AGENT / "trt" / "build.py", AGENT / "trt" / "engines.py"
ORIN = {"name": "Orin", "compute_capability": "8.7"}


def write_recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe for every graph in the folder, made as an exporter would."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in (".onnx", ".bin"))
    files = [
        {"name": name, "bytes": (folder / name).stat().st_size, "sha256": trt_build.sha256_of(folder / name)}
        for name in names
    ]
    graphs = [name[:-5] for name in names if name.endswith(".onnx")]
    engines = [
        {"name": name, "onnx": f"{name}.onnx", "engine": f"{name}.engine", "batch": 1} for name in graphs
    ]
    recipe = {"format": "morvit-build/1", "precision": "fp32", "files": files, "engines": engines} | changes
    (folder / "build.json").write_text(json.dumps(recipe))
    return recipe


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with two files that only the made-up TensorRT takes for graphs."""
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    (tmp_path / "weights.bin").write_bytes(b"weights")
    write_recipe(tmp_path, timing_cache="timing.cache", workspace_mib=64)
    return tmp_path


@pytest.fixture
def events() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def on_orin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_build, "this_device", lambda: ORIN)


# --- TensorRT-RTX, really -----------------------------------------------------------------------------------------


def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="the rtx extra, where NVIDIA has a wheel of it")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("dispatch", "names"),
    [("graph", ["model"]), ("host", ["b0", "b1", "full", "stem"])],
    ids=["graph", "host"],
)
def test_rtx_builds_a_bundle_without_a_gpu(
    exported: Callable[..., Path],
    tmp_path: Path,
    events: list[dict[str, Any]],
    precision: str,
    dispatch: str,
    names: list[str],
) -> None:
    rtx()
    bundle = exported(make_config(), plan=threshold_ladder(), dispatch=dispatch, precision=precision)
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    write_recipe(folder, precision=precision, timing_cache="timing.cache")
    record = build(folder, events.append, flavor="rtx", capabilities=("SM89",))
    assert [engine["name"] for engine in record["engines"]] == names
    assert json.loads((folder / "engines.json").read_text()) == record
    assert trt_engines.read_engines(folder) == record
    for engine in record["engines"]:
        assert engine["precision"] == precision and engine["compute_capability"] == ["SM89"]
        assert len(trt_engines.read_engine(folder, record, engine["name"])) == engine["bytes"] > 0
        steps = [
            event for event in events if event["event"] == "progress" and event["engine"] == engine["name"]
        ]
        told = [event["percent"] for event in steps]
        assert told == sorted(told) and told[-1] > 50 and all(0 <= percent <= 100 for percent in told)
    assert not (folder / "timing.cache").exists()  # RTX has none
    assert not list(folder.glob(".*partial*"))


@pytest.mark.slow
def test_rtx_builds_a_dynamic_batch(
    exported: Callable[..., Path], tmp_path: Path, events: list[dict[str, Any]]
) -> None:
    rtx()
    folder = Path(shutil.copytree(exported(make_config(), batch="dynamic"), tmp_path / "bundle"))
    recipe = write_recipe(folder)
    recipe["engines"][0]["batch"] = [1, 4, 8]
    (folder / "build.json").write_text(json.dumps(recipe))
    build(folder, events.append, flavor="rtx", capabilities=("SM86", "SM89"))
    assert trt_engines.read_engines(folder)["engines"][0]["compute_capability"] == ["SM86", "SM89"]
    recipe["engines"][0]["batch"] = "dynamic"
    (folder / "build.json").write_text(json.dumps(recipe))
    with pytest.raises(BuildError, match=r"got batch 'dynamic'.*\[lowest, usual, highest\]"):
        build(folder, events.append, flavor="rtx", capabilities=("SM89",))


def test_rtx_says_what_it_cannot_parse(
    tiny_bundle: Path, tmp_path: Path, events: list[dict[str, Any]]
) -> None:
    rtx()
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    folder = tmp_path / "bundle"
    (folder / "model.onnx").write_bytes(b"no graph at all")
    write_recipe(folder)
    with pytest.raises(BuildFailed, match=r"model\.onnx") as caught:
        build(folder, events.append, flavor="rtx", capabilities=("SM89",))
    assert caught.value.exit_status == 1 and not (folder / "model.engine").exists()
    assert not (folder / "engines.json").exists()


def test_a_capability_that_rtx_does_not_know(copied_bundle: Path, events: list[dict[str, Any]]) -> None:
    rtx()
    write_recipe(copied_bundle)
    with pytest.raises(BuildError, match=r"got 'SM87', expected one of .*SM89"):
        build(copied_bundle, events.append, flavor="rtx", capabilities=("SM87",))


@pytest.mark.parametrize("capability", ["8.7", "9.0"])
def test_a_gpu_that_rtx_does_not_build_for_is_named(
    copied_bundle: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    """Without a named GPU the engines are for the one here, and RTX has none for Orin and Hopper."""
    rtx()
    monkeypatch.setattr(trt_build, "this_device", lambda: {"name": "A GPU", "compute_capability": capability})
    write_recipe(copied_bundle, flavor="rtx")
    own = "SM" + capability.replace(".", "")
    with pytest.raises(BuildError, match=rf"this GPU is A GPU \({own}\), and .* SM89.*--flavor tensorrt"):
        build(copied_bundle, events.append)
    assert not events and not list(copied_bundle.glob("*.engine"))


def test_the_script_alone_in_a_bundle(copied_bundle: Path) -> None:
    """As it is used: copied as build.py, run by path, one JSON object a line; the second time nothing is to do."""
    rtx()
    write_recipe(copied_bundle, flavor="rtx", compute_capability=["SM89"])
    shutil.copy(SCRIPT, copied_bundle / "build.py")
    command = [sys.executable, "-I", str(copied_bundle / "build.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert events[0]["event"] == "start" and events[-1] == {"event": "done", "record": "engines.json"}
    before = (copied_bundle / "model.engine").stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["start", "kept", "done"]
    assert (copied_bundle / "model.engine").stat().st_mtime_ns == before


# --- classic TensorRT ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "11.4.1"])
def test_one_path_for_all_versions(
    small: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, on_orin: None, version: str
) -> None:
    trt = fake_tensorrt(monkeypatch, version)
    write_recipe(
        small,
        timing_cache="timing.cache",
        workspace_mib=64,
        version_compatible=True,
        hardware_compatible=True,
    )
    record = build(small, events.append)
    (builder,) = trt.built
    assert builder.network_flags == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert builder.config.flags == {trt.BuilderFlag.VERSION_COMPATIBLE}  # TF32 is off, nothing else is on
    assert builder.config.pools == {trt.MemoryPoolType.WORKSPACE: 64 * 2**20}
    assert builder.config.hardware_compatibility_level == trt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert builder.config.profiles == []
    assert (record["flavor"], record["tensorrt"], record["device"]) == ("tensorrt", version, ORIN)
    assert (small / "model.engine").read_bytes() == b"engine 1"
    assert (small / "timing.cache").read_bytes() == b"timed"
    percents = [event["percent"] for event in events if event["event"] == "progress"]
    assert percents == [12.5, 25.0, 37.5, 50.0, 62.5, 75.0, 87.5, 100.0]


def test_tf32_is_used_only_where_the_recipe_says_so(
    small: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = fake_tensorrt(monkeypatch, "10.3.0")
    write_recipe(small, tf32=True)
    build(small, events.append)
    assert trt.built[0].config.flags == {trt.BuilderFlag.TF32}


def test_a_network_flag_that_is_gone_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = fake_tensorrt(monkeypatch, "11.4.1")
    trt.NetworkDefinitionCreationFlag = type("NetworkDefinitionCreationFlag", (), {})
    assert trt_build.network_flags(trt) == 0


def test_the_timing_cache_is_loaded_and_one_from_elsewhere_begun_anew(
    small: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = fake_tensorrt(monkeypatch, "10.3.0")
    (small / "timing.cache").write_bytes(b"earlier ")
    build(small, events.append)
    assert (
        trt.built[0].config.cache == b"earlier " and (small / "timing.cache").read_bytes() == b"earlier timed"
    )
    (small / "timing.cache").write_bytes(b"other GPU")
    build(small, events.append, rebuild=True)
    assert trt.built[1].config.cache == b""
    assert any("timing.cache is from another" in event.get("message", "") for event in events)


@pytest.mark.parametrize(
    ("earlier", "cached", "noted"),
    [(b"torn", b"timed", 1), (None, b"timed", 0), (b"torn, and none is made", None, 1)],
    ids=["damaged", "absent", "none at all"],
)
def test_a_timing_cache_that_tensorrt_does_not_make(
    small: Path,
    events: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    earlier: bytes | None,
    cached: bytes | None,
    noted: int,
) -> None:
    """None in its place is a TypeError of pybind11's; without a cache the build only takes longer."""
    trt = fake_tensorrt(monkeypatch, "10.3.0")
    trt.caches = cached is not None
    if earlier is not None:
        (small / "timing.cache").write_bytes(earlier)
    build(small, events.append)
    assert trt.built[0].config.cache == (b"" if cached else None)
    assert (small / "timing.cache").read_bytes() == (cached or earlier)
    assert sum("begun anew" in event.get("message", "") for event in events) == noted
    assert (small / "model.engine").read_bytes() == b"engine 1"


def test_a_dynamic_batch_gets_a_profile(
    small: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = fake_tensorrt(monkeypatch, "11.4.1")
    trt.shape = (-1, 32, 32, 3)
    recipe = write_recipe(small)
    recipe["engines"][0]["batch"] = 4
    (small / "build.json").write_text(json.dumps(recipe))
    build(small, events.append)
    assert trt.built[0].config.profiles[0].shapes == {"image": ((4, 32, 32, 3),) * 3}
    trt.shape = (1, -1, 32, 3)
    with pytest.raises(BuildError, match="only the batch may be dynamic"):
        build(small, events.append, rebuild=True)


def test_what_tensorrt_complained_of_is_shown(
    small: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = fake_tensorrt(monkeypatch, "10.3.0")
    trt.refuses = True
    with pytest.raises(BuildFailed, match=r"no engine was built.*\n  Error Code 10: could not find"):
        build(small, events.append)
    trt.broken = True
    with pytest.raises(BuildFailed, match=r"model \(model.onnx\): In node 3 .*UNSUPPORTED_NODE"):
        build(small, events.append)
    trt.no_gpu = True
    with pytest.raises(BuildFailed, match=r"nullptr.*\n  CUDA initialization failure"):
        build(small, events.append)
    assert not (small / "model.engine").exists() and not (small / "engines.json").exists()


def test_an_interrupted_reader_ends_the_build(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception must not pass through the library's own threads: the build is ended, and says so."""
    fake_tensorrt(monkeypatch, "10.3.0")

    def gone(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            raise BrokenPipeError

    with pytest.raises(BuildFailed, match="no engine was built"):
        build(small, gone)


def test_a_build_that_was_cut_off_goes_on(
    small: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, on_orin: None
) -> None:
    trt = fake_tensorrt(monkeypatch, "10.3.0")
    (small / "stem.onnx").write_bytes(b"another graph")
    write_recipe(small)
    build(small, events.append, only=("stem",))
    assert [engine["name"] for engine in trt_engines.read_engines(small)["engines"]] == ["stem"]
    record = build(small, events.append)
    assert [engine["name"] for engine in record["engines"]] == ["stem", "model"] and len(trt.built) == 2
    (small / "stem.engine").write_bytes(b"torn")
    build(small, events.append)
    assert len(trt.built) == 3  # only the damaged one
    monkeypatch.setattr(trt_build, "this_device", lambda: {**ORIN, "compute_capability": "11.0"})
    build(small, events.append)
    assert len(trt.built) == 5  # another GPU: all of them
    (small / "model.onnx").write_bytes(b"a new graph")
    write_recipe(small)
    build(small, events.append)
    assert len(trt.built) == 7  # other files: all of them


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flavor", "version", "says"),
    [
        ("tensorrt", "8.6.2", "TensorRT 8.6.2 is too old, expected 10.3 or newer and below 12"),
        ("tensorrt", "10.0.1", "too old"),
        ("tensorrt", "12.0.0", "newer than this recipe knows"),
        ("rtx", "1.2.0.54", "TensorRT-RTX 1.2.0.54 is too old"),
    ],
)
def test_versions_that_do_not_fit(flavor: str, version: str, says: str) -> None:
    with pytest.raises(BuildError, match=says):
        trt_build.check_version(flavor, version)


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.0.0", "11.4.1"])
def test_versions_that_fit(version: str) -> None:
    trt_build.check_version("tensorrt", version)


def refused(version: str, flavor: str = "tensorrt") -> str:
    with pytest.raises(BuildError) as caught:
        trt_build.check_version(flavor, version)
    return str(caught.value)


def test_an_old_orin_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_build, "_on_jetson", lambda: True)
    monkeypatch.setattr(trt_build, "_chip", lambda: "tegra234")
    said = refused("8.5.2.2")
    assert "update the board to JetPack 6.1 or newer" in said and "--target onnx" not in said
    assert trt_build.install_line("tensorrt") == "sudo apt-get install python3-libnvinfer"


@pytest.mark.parametrize(
    ("chip", "last"),
    [
        ("tegra194", "JetPack 5 with TensorRT 8.5 is the last for Jetson Xavier"),
        ("tegra186", "JetPack 4 with TensorRT 8.2 is the last for Jetson TX2"),
        ("tegra210", "JetPack 4 with TensorRT 8.2 is the last for Jetson Nano and TX1"),
    ],
)
def test_a_board_without_a_newer_jetpack_is_not_told_to_update(
    monkeypatch: pytest.MonkeyPatch, chip: str, last: str
) -> None:
    monkeypatch.setattr(trt_build, "_on_jetson", lambda: True)
    monkeypatch.setattr(trt_build, "_chip", lambda: chip)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    said = refused("8.5.2.2")
    assert last in said and "`--target onnx`" in said
    assert "6.1" not in said and "apt-get" not in said
    with pytest.raises(BuildError) as absent:
        trt_build.load_tensorrt("tensorrt")
    assert last in str(absent.value) and "apt-get" not in str(absent.value)


def test_a_jetson_of_an_unknown_chip_is_told_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_build, "_on_jetson", lambda: True)
    monkeypatch.setattr(trt_build, "_chip", lambda: None)
    said = refused("8.5.2.2")
    assert "JetPack 6.1 or newer" in said and "older than Orin" in said and "--target onnx" in said


def test_an_old_version_of_pip_is_told_to_upgrade() -> None:
    """`pip install` leaves an installed version as it is."""
    assert "python3 -m pip install tensorrt --upgrade" in refused("8.6.1")
    assert "python3 -m pip install tensorrt-rtx --upgrade" in refused("1.2.0", "rtx")


def test_the_chip_is_read_from_the_device_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trt_build._chip() is None  # no Jetson runs these tests
    tree = b"nvidia,p3668-0000\0nvidia,p3509-0000+p3668-0000\0nvidia,tegra194\0"
    monkeypatch.setattr(Path, "read_bytes", lambda path: tree)
    assert trt_build._chip() == "tegra194"


def test_no_tensorrt_at_all(
    small: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BuildError, match=r"no TensorRT for this Python .* pip install tensorrt-rtx"):
        build(small, events.append)
    with pytest.raises(BuildError, match=r"no TensorRT for this Python"):
        build(small, events.append, flavor="tensorrt")


def test_the_flavor_that_is_installed_is_taken_and_told(
    small: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tensorrt(monkeypatch, "10.3.0")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    build(small, events.append)
    assert events[0]["flavor"] == "tensorrt" and events[0]["tensorrt"] == "10.3.0"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"only": ("nothing",)}, "--only: got nothing, the recipe has model"),
        ({"flavor": "lite"}, "got 'lite', expected one of tensorrt, rtx"),
        ({"capabilities": ("SM89",)}, "--compute-capability is for --flavor rtx"),
    ],
)
def test_options_that_do_not_fit(
    small: Path,
    events: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    says: str,
) -> None:
    fake_tensorrt(monkeypatch, "10.3.0")
    with pytest.raises(BuildError, match=says) as caught:
        build(small, events.append, **options)
    assert caught.value.exit_status == 2


def test_damaged_files_are_refused(small: Path, events: list[dict[str, Any]]) -> None:
    (small / "weights.bin").write_bytes(b"weightz")
    with pytest.raises(BuildError, match=r"weights.bin is not what was exported"):
        build(small, events.append)
    (small / "weights.bin").unlink()
    with pytest.raises(BuildError, match=r"weights.bin is missing"):
        build(small, events.append)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "got format 'list'"),
        ('{"format": "morvit-build/9"}', "got format 'morvit-build/9', expected 'morvit-build/1'"),
        ('{"format": "morvit-build/1"}', "'files' is missing"),
    ],
)
def test_recipes_that_are_none(small: Path, content: str, says: str) -> None:
    (small / "build.json").write_text(content)
    with pytest.raises(BuildError, match=says):
        trt_build.read_recipe(small)


@pytest.mark.parametrize("name", ["../model.engine", "/etc/model.engine", "a/b.engine", ".hidden"])
def test_names_that_leave_the_folder_are_refused(small: Path, name: str) -> None:
    recipe = write_recipe(small)
    recipe["engines"][0]["engine"] = name
    (small / "build.json").write_text(json.dumps(recipe))
    with pytest.raises(BuildError, match="leaves the folder"):
        trt_build.read_recipe(small)


def test_a_graph_without_a_hash_is_refused(small: Path) -> None:
    recipe = write_recipe(small)
    recipe["engines"][0]["onnx"] = "other.onnx"
    (small / "build.json").write_text(json.dumps(recipe))
    with pytest.raises(BuildError, match=r"other\.onnx is not listed whole"):
        trt_build.read_recipe(small)


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="run this in the folder of a bundle"):
        trt_build.read_recipe(tmp_path)


def test_a_full_disk_leaves_no_half_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BuildError, match="No space left on device; free some space"):
        trt_build.write_whole(tmp_path / "model.engine", b"engine")
    assert list(tmp_path.iterdir()) == []


def test_main_tells_and_exits(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trt = fake_tensorrt(monkeypatch, "10.3.0")
    assert trt_build.main([str(small), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {"event": "done", "record": "engines.json"}
    trt.refuses = True
    assert trt_build.main([str(small), "--rebuild", "--json"]) == 1
    assert "Error Code 10" in json.loads(capsys.readouterr().out.splitlines()[-1])["message"]
    assert trt_build.main([str(small / "nowhere")]) == 2


def test_people_read_sentences_also_in_a_pipe(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trt = fake_tensorrt(monkeypatch, "10.3.0")
    assert trt_build.main([str(small)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("TensorRT 10.3.0") and "wrote engines.json" in told and "{" not in told
    assert len(told.splitlines()) < 20, "progress comes in steps of ten percent"
    trt.refuses = True
    assert trt_build.main([str(small), "--rebuild"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "Error Code 10" in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (
            {"event": "start", "flavor": "rtx", "tensorrt": "1.7", "device": None},
            "TensorRT-RTX 1.7, no GPU here",
        ),
        ({"event": "progress", "engine": "b0", "percent": 12.0, "phase": "Tactics"}, "b0:  12.0 % Tactics"),
        ({"event": "built", "engine": "b0", "bytes": 2_000_000, "seconds": 3}, "b0: 2.0 MB in 3.0 s"),
        ({"event": "kept", "engine": "b0"}, "b0: is up to date"),
        ({"event": "note", "message": "begun anew"}, "begun anew"),
        ({"event": "done", "record": "engines.json"}, "wrote engines.json"),
    ],
)
def test_sentences_for_a_terminal(
    event: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trt_build.tell_text(event)
    assert says in capsys.readouterr().out


# --- records ------------------------------------------------------------------------------------------------------


def record_of(flavor: str = "tensorrt", version: str = "10.3.0", **engine: Any) -> dict[str, Any]:
    one = {"name": "model", "engine": "model.engine", "compute_capability": []}
    one |= {"hardware_compatible": False, "version_compatible": False} | engine
    return {
        "flavor": flavor,
        "tensorrt": version,
        "device": ORIN if flavor == "tensorrt" else None,
        "engines": [one],
    }


@pytest.mark.parametrize(
    ("record", "flavor", "version", "capability", "says"),
    [
        (record_of(), "tensorrt", "10.3.0", "8.7", None),
        (record_of(), "tensorrt", "10.3.0", None, None),
        (record_of(), "rtx", "1.7.1", "8.9", "for tensorrt, this runtime is rtx"),
        (record_of(), "tensorrt", "10.4.0", "8.7", "built with version 10.3.0, this is 10.4.0"),
        (record_of(), "tensorrt", "10.3.0", "11.0", "compute capability 8.7 .*has 11.0"),
        (record_of(version_compatible=True), "tensorrt", "10.13.0", "8.7", None),
        (record_of(version_compatible=True), "tensorrt", "11.4.1", "8.7", "same major version"),
        (record_of(version="10.13.0", version_compatible=True), "tensorrt", "10.3.0", "8.7", "newer ones"),
        (record_of(hardware_compatible=True), "tensorrt", "10.3.0", "11.0", None),
        (record_of(hardware_compatible=True), "tensorrt", "10.3.0", "7.2", "has 7.2"),
        (record_of("rtx", "1.7.1", compute_capability=["SM89"]), "rtx", "1.7.1", "8.9", None),
        (record_of("rtx", "1.7.1", compute_capability=["SM89"]), "rtx", "1.7.1", "12.0", "this GPU is SM120"),
        (record_of("rtx", "1.7.1"), "rtx", "1.7.1", "12.0", None),
    ],
)
def test_engines_of_another_machine_are_refused(
    record: dict[str, Any], flavor: str, version: str, capability: str | None, says: str | None
) -> None:
    reason = trt_engines.why_refused(record, flavor, version, capability)
    if says is None:
        assert reason is None
    else:
        assert reason is not None
        with pytest.raises(trt_engines.EngineError, match=says):
            raise trt_engines.EngineError(reason)


def test_records_that_cannot_be_read(
    small: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(trt_engines.EngineError, match=r"no engines yet .*build\.py"):
        trt_engines.read_engines(small)
    fake_tensorrt(monkeypatch, "10.3.0")
    record = build(small, events.append)
    with pytest.raises(trt_engines.EngineError, match="'b0' was not built, there is: model"):
        trt_engines.read_engine(small, record, "b0")
    (small / "model.engine").write_bytes(b"torn")
    with pytest.raises(trt_engines.EngineError, match="sha256 differs"):
        trt_engines.read_engine(small, record, "model")
    for content, says in (("{", "is not JSON"), ("{}", "is not of format")):
        (small / "engines.json").write_text(content)
        with pytest.raises(trt_engines.EngineError, match=says):
            trt_engines.read_engines(small)


# --- the device ---------------------------------------------------------------------------------------------------


class Driver:
    """libcuda with one Orin, or with an error."""

    def __init__(self, error: int = 0) -> None:
        self.error = error

    def cuInit(self, flags: int) -> int:
        return self.error

    def cuDeviceGet(self, number: Any, ordinal: int) -> int:
        return 0

    def cuDeviceGetName(self, name: Any, length: int, number: Any) -> int:
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, number: Any) -> int:
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0


def test_the_device_is_asked_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_build.ctypes, "CDLL", lambda name: Driver())
    assert trt_build.this_device() == ORIN
    monkeypatch.setattr(trt_build.ctypes, "CDLL", lambda name: Driver(error=100))
    assert trt_build.this_device() is None


def test_phases_that_nest_and_end_early() -> None:
    phases = trt_build.Phases()
    assert phases.done() == 0
    phases.start("all", None, 4)
    phases.start("part", "all", 2)
    phases.step("part", 0)
    assert phases.done() == pytest.approx(1 / 8)
    phases.finish("part")
    assert phases.done() == pytest.approx(1 / 8)  # never falls
    phases.step("all", 2)
    assert phases.done() == pytest.approx(3 / 4)
    phases.step("unknown", 9)
    phases.finish("all")
    assert phases.done() == pytest.approx(3 / 4)


@pytest.mark.parametrize("path", (SCRIPT, ENGINES), ids=lambda path: path.name)
def test_python_38_syntax_and_nothing_but_the_standard_library(path: Path) -> None:
    assert_standalone(path)


def test_both_files_agree_on_the_record() -> None:
    assert (trt_engines.RECORD, trt_engines.FORMAT) == (trt_build.RECORD, trt_build.RECORD_FORMAT)
    assert importlib.import_module("morvit_deploy.agent.trt.build") is trt_build
