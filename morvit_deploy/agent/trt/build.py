#!/usr/bin/env python3
"""Builds a bundle's TensorRT engines on the machine that will run them: `python3 build.py` in the bundle's folder.

One file, as it travels alone: for Python 3.8 or newer with the TensorRT that JetPack ships (10.3 to 11), or
TensorRT-RTX. A bundle holds it as `build.py`, beside the recipe `build.json` and the ONNX graphs. Engines and
`engines.json` appear whole or not at all.
Exit status: 0 built · 1 TensorRT refused to build · 2 wrong recipe, damaged files or no fit TensorRT.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import hashlib
import importlib
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[dict[str, Any]], None]  # takes an event: an object with the key "event"

RECIPE, RECORD = "build.json", "engines.json"
RECIPE_FORMAT, RECORD_FORMAT = "morvit-build/1", "morvit-engines/1"
MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
VERSIONS = {"tensorrt": ((10, 3), (12,)), "rtx": ((1, 3), (2,))}  # from, and below
PRODUCT = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
ENDED = {  # chips that no JetPack with TensorRT 10.3 supports: their boards, the last JetPack, its TensorRT
    "tegra194": ("Jetson Xavier", "5", "8.5"),
    "tegra186": ("Jetson TX2", "4", "8.2"),
    "tegra210": ("Jetson Nano and TX1", "4", "8.2"),
}
INSTEAD = "export the checkpoint with `--target onnx`, and run that bundle with ONNX Runtime"
MIB = 2**20
LAST_LINES = 20  # of TensorRT's log, shown with an error
STEP_PERCENT = (
    1.0  # progress is reported when it moved by so much: TensorRT reports some hundred steps a second
)
_BLOCK = 2**22
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h


class BuildError(Exception):
    """The recipe, its files or this machine's TensorRT cannot be used."""

    exit_status = 2


class BuildFailed(BuildError):
    """TensorRT did not build an engine; the message holds its complaints."""

    exit_status = 1


def build(
    folder: Path,
    tell: Tell,
    *,
    flavor: str | None = None,
    capabilities: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    rebuild: bool = False,
) -> dict[str, Any]:
    """Build what the recipe lists and return the record that `engines.json` holds.

    `flavor` is `tensorrt` or `rtx`: default is the recipe's, else what is installed. `capabilities` (SM89, …) are for
    rtx, which can build for a GPU that is not here. `only` names some of the engines. Engines that were built here
    from the same files are kept, so that a build that was cut off goes on; `rebuild` makes them anew.
    """
    recipe = read_recipe(folder)
    wanted = _wanted(recipe, only)
    check_files(folder, recipe["files"])
    flavor, trt = load_tensorrt(flavor or recipe.get("flavor"))
    if flavor == "rtx":  # the recipe's are for it alone: a Jetson may have TensorRT in its place
        capabilities = capabilities or tuple(recipe.get("compute_capability") or ())
    elif capabilities:
        raise BuildError(
            "--compute-capability is for --flavor rtx: TensorRT builds for the GPU that it runs on"
        )
    device = this_device()
    if flavor == "rtx" and not capabilities:
        refused = why_not_here(trt, device)
        if refused:
            raise BuildError(refused)
    head = {"format": RECORD_FORMAT, "flavor": flavor, "tensorrt": trt.__version__, "device": device}
    tell({"event": "start", **head, "engines": [engine["name"] for engine in wanted]})
    records = _earlier(folder, head)
    for engine in wanted:
        made_from = fingerprint(recipe, engine, capabilities)
        if not rebuild and _is_whole(folder, records.get(engine["name"]), made_from):
            tell({"event": "kept", "engine": engine["name"]})
            continue
        record = _build_one(trt, flavor, folder, recipe, engine, capabilities, tell)
        records[engine["name"]] = {**record, "made_from": made_from}
        write_whole(
            folder / RECORD, json.dumps({**head, "engines": list(records.values())}, indent=1).encode()
        )
        tell(
            {
                "event": "built",
                "engine": engine["name"],
                "seconds": record["seconds"],
                "bytes": record["bytes"],
            }
        )
    return {**head, "engines": list(records.values())}


def read_recipe(folder: Path) -> dict[str, Any]:
    """`build.json`, checked: names stay in the folder, and every graph is among the files with a hash."""
    try:
        recipe = json.loads((folder / RECIPE).read_bytes())
    except OSError as error:
        raise BuildError(f"{folder / RECIPE}: {error.strerror}; run this in the folder of a bundle") from None
    except ValueError:
        raise BuildError(f"{folder / RECIPE} is not JSON; copy the bundle again") from None
    if not isinstance(recipe, dict) or recipe.get("format") != RECIPE_FORMAT:
        got = recipe.get("format") if isinstance(recipe, dict) else type(recipe).__name__
        raise BuildError(
            f"{RECIPE}: got format {got!r}, expected {RECIPE_FORMAT!r}; take this bundle's own build.py"
        )
    try:
        names = {file["name"] for file in recipe["files"]}
        _check_names(
            [*names, *(engine["engine"] for engine in recipe["engines"]), recipe.get("timing_cache")]
        )
        absent = {engine["onnx"] for engine in recipe["engines"]} - names
        sound = all(len(file["sha256"]) == 64 and file["bytes"] >= 0 for file in recipe["files"])
    except (KeyError, TypeError) as error:
        raise BuildError(
            f"{RECIPE}: {error} is missing or of another kind; export the bundle again"
        ) from None
    if absent or not sound:
        raise BuildError(
            f"{RECIPE}: {', '.join(sorted(absent)) or 'a hash'} is not listed whole; export it again"
        )
    return recipe


def check_files(folder: Path, files: list[dict[str, Any]]) -> None:
    """Check size and sha256 of every file that goes into an engine."""
    for file in files:
        path = folder / file["name"]
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise BuildError(f"{path} is missing; copy the bundle again")
        if size != file["bytes"] or sha256_of(path) != file["sha256"]:
            raise BuildError(
                f"{path} is not what was exported (size or sha256 differ); copy the bundle again"
            )


def load_tensorrt(flavor: str | None) -> tuple[str, Any]:
    """The flavor and its module, of a version that this file supports."""
    if flavor is not None and flavor not in MODULES:
        raise BuildError(f"flavor: got {flavor!r}, expected one of {', '.join(MODULES)}")
    problems = []
    for name in MODULES if flavor is None else (flavor,):
        try:
            trt = importlib.import_module(MODULES[name])
        except ImportError as error:
            problems.append(f"{PRODUCT[name]}: {error}; {remedy(name)}")
            continue
        check_version(name, str(trt.__version__))
        return name, trt
    raise BuildError(f"no TensorRT for this Python ({sys.executable}). " + ". Or: ".join(problems))


def check_version(flavor: str, version: str) -> None:
    """Raise BuildError unless the version is one that engines can be built with."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    lowest, beyond = VERSIONS[flavor]
    known = f"{'.'.join(map(str, lowest))} or newer and below {'.'.join(map(str, beyond))}"
    if numbers < lowest:
        fix = update(flavor)
        raise BuildError(f"{PRODUCT[flavor]} {version} is too old, expected {known}; {fix}")
    if numbers >= beyond:
        raise BuildError(
            f"{PRODUCT[flavor]} {version} is newer than this recipe knows, expected {known}; export again"
        )


def remedy(flavor: str) -> str:
    """How to get a flavor on this machine, as the end of a message."""
    ended = _ended() if flavor == "tensorrt" else None
    return ended or f"install it with: {install_line(flavor)}"


def update(flavor: str) -> str:
    """How to get a newer version on this machine, as the end of a message: a Jetson has it from JetPack."""
    if flavor == "rtx" or not _on_jetson():
        return f"update it with: {install_line(flavor)} --upgrade"
    newer = (
        "update the board to JetPack 6.1 or newer, which ships 10.3 (developer.nvidia.com/embedded/jetpack)"
    )
    older = "" if _chip() else ". A Jetson older than Orin has no such JetPack: " + INSTEAD
    return _ended() or newer + older


def install_line(flavor: str) -> str:
    """The command that installs the Python module on this machine."""
    if flavor == "rtx":
        return "python3 -m pip install tensorrt-rtx"
    return "sudo apt-get install python3-libnvinfer" if _on_jetson() else "python3 -m pip install tensorrt"


def this_device() -> dict[str, str] | None:
    """Name and compute capability of the first GPU, from the driver; None when there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number, name = ctypes.c_int(), ctypes.create_string_buffer(100)
    parts = (ctypes.c_int(), ctypes.c_int())
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(number), 0):
        return None
    if cuda.cuDeviceGetName(name, len(name), number):
        return None
    for part, attribute in ((parts[0], _MAJOR), (parts[1], _MINOR)):
        if cuda.cuDeviceGetAttribute(ctypes.byref(part), attribute, number):
            return None
    capability = f"{parts[0].value}.{parts[1].value}"
    return {"name": name.value.decode("utf-8", "replace"), "compute_capability": capability}


def fingerprint(recipe: dict[str, Any], engine: dict[str, Any], capabilities: tuple[str, ...]) -> str:
    """sha256 of all that an engine depends on, except TensorRT and the device."""
    options = {key: value for key, value in recipe.items() if key not in ("engines", "timing_cache")}
    return hashlib.sha256(json.dumps([options, engine, capabilities], sort_keys=True).encode()).hexdigest()


def write_whole(final: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all: a temporary file beside it, then one rename."""
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
        partial.replace(final)
    except OSError as error:
        fix = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make the folder writable"
        raise BuildError(f"{final} was not written: {error.strerror}; {fix} and repeat") from None
    finally:
        if partial.exists():
            partial.unlink()


def sha256_of(path: Path) -> str:
    """Hash of a file that may be larger than the memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


# --- TensorRT: one path over 10.3 … 11 and RTX --------------------------------------------------------------------


def _build_one(
    trt: Any,
    flavor: str,
    folder: Path,
    recipe: dict[str, Any],
    engine: dict[str, Any],
    capabilities: tuple[str, ...],
    tell: Tell,
) -> dict[str, Any]:
    """Build one engine and write it; returns its record."""
    started = time.monotonic()
    log = new_log(trt)
    try:
        builder = trt.Builder(log)
    except (
        Exception
    ) as error:  # pybind11 raises TypeError when the library returns nothing: no driver, no GPU
        raise _failed(f"no builder ({error})", engine, log) from None
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(folder / engine["onnx"])):  # weights.bin is read from the same folder
        complaints = [str(parser.get_error(number)) for number in range(parser.num_errors)]
        raise _failed("; ".join(complaints) or "the parser gave no reason", engine, log)
    config = builder.create_builder_config()
    _configure(trt, flavor, config, recipe, capabilities)
    _set_shapes(builder, network, config, engine)
    cache = _TimingCache(folder, recipe.get("timing_cache") if flavor == "tensorrt" else None)
    cache.load(config, tell)
    if hasattr(trt, "IProgressMonitor"):
        monitor = _monitor(trt, engine["name"], tell)  # must outlive the build
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failed("no engine was built", engine, log)
    content = memoryview(plan)
    write_whole(folder / engine["engine"], content)
    cache.save(config)
    return {
        "name": engine["name"],
        "engine": engine["engine"],
        "bytes": content.nbytes,
        "sha256": hashlib.sha256(content).hexdigest(),
        "seconds": round(time.monotonic() - started, 3),
        "precision": recipe.get("precision"),
        "batch": engine.get("batch"),
        "compute_capability": list(capabilities),
        "hardware_compatible": bool(recipe.get("hardware_compatible")),
        "version_compatible": bool(recipe.get("version_compatible")),
        "complaints": log.warnings[-LAST_LINES:],
    }


def network_flags(trt: Any) -> int:
    """Strongly typed, as in the ONNX. TensorRT 11 has no other mode and may lack the flag."""
    strongly = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if strongly is None else 1 << int(strongly)


def _configure(
    trt: Any, flavor: str, config: Any, recipe: dict[str, Any], capabilities: tuple[str, ...]
) -> None:
    if recipe.get("workspace_mib"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(recipe["workspace_mib"]) * MIB)
    if not recipe.get("tf32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default: fp32 products would be rounded to 10 bits
    if recipe.get("version_compatible"):
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if recipe.get("hardware_compatible"):
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if flavor == "rtx" and capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            config.set_compute_capability(_capability(trt, name), index)


def why_not_here(trt: Any, device: dict[str, str] | None) -> str | None:
    """Why TensorRT-RTX has no engines for this machine's GPU; None if it has, or if there is no GPU here."""
    if device is None:
        return None
    own, known = "SM" + device["compute_capability"].replace(".", ""), capabilities_of(trt)
    if own in known:
        return None
    return (
        f"this GPU is {device['name']} ({own}), and {PRODUCT['rtx']} {trt.__version__} builds only for "
        f"{', '.join(known)}: use --flavor tensorrt for this GPU, or name another one that will run the engines, as "
        f"in --compute-capability {known[-1]}"
    )


def capabilities_of(trt: Any) -> list[str]:
    """Names of the GPUs that TensorRT-RTX builds for, in ascending order."""
    names = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return sorted(names, key=lambda name: int(name[2:]))


def _capability(trt: Any, name: str) -> Any:
    known = sorted(trt.ComputeCapability.__members__)
    if name not in known:
        raise BuildError(f"compute capability: got {name!r}, expected one of {', '.join(known)}")
    return trt.ComputeCapability.__members__[name]


def _set_shapes(builder: Any, network: Any, config: Any, engine: dict[str, Any]) -> None:
    """Give graphs of dynamic batch an optimization profile from the recipe's batch: a number, or three."""
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    batch = engine.get("batch")
    sizes = [batch] * 3 if isinstance(batch, int) else batch
    if not isinstance(sizes, list) or len(sizes) != 3 or not sizes == sorted(sizes):
        raise BuildError(
            f"{RECIPE}: engine {engine['name']}: got batch {batch!r} for a graph of dynamic batch, expected a number "
            "or [lowest, usual, highest]"
        )
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        profile.set_shape(tensor.name, *(tuple(_fixed(tensor, size)) for size in sizes))
    config.add_optimization_profile(profile)


def _fixed(tensor: Any, batch: int) -> list[int]:
    first, *rest = tuple(tensor.shape)
    if -1 in rest:
        raise BuildError(
            f"input {tensor.name} has shape {tuple(tensor.shape)}: only the batch may be dynamic"
        )
    return [batch if first == -1 else first, *rest]


class _TimingCache:
    """TensorRT's measurements of kernels, which speed up the next build on this machine. RTX has none."""

    def __init__(self, folder: Path, name: str | None) -> None:
        self.path = None if name is None else folder / name

    def load(self, config: Any, tell: Tell) -> None:
        if self.path is None:
            return
        earlier = self.path.read_bytes() if self.path.is_file() else b""
        if not self._set(config, earlier):
            if earlier:
                note = f"{self.path.name} is from another TensorRT or GPU, or damaged: begun anew"
                tell({"event": "note", "message": note})
            self._set(config, b"")

    @staticmethod
    def _set(config: Any, content: bytes) -> bool:
        """Create and use a cache; False where TensorRT takes none of these bytes: None for a cache is a TypeError."""
        cache = config.create_timing_cache(content)
        return cache is not None and bool(config.set_timing_cache(cache, False))

    def save(self, config: Any) -> None:
        """Write what was measured, if TensorRT has it: the engine is complete without."""
        cache = None if self.path is None else config.get_timing_cache()
        content = None if cache is None else cache.serialize()
        if self.path is not None and content is not None:
            write_whole(self.path, memoryview(content))


def new_log(trt: Any) -> Any:
    """A logger that keeps errors and warnings instead of printing them."""

    class Log(trt.ILogger):  # the base is only known at run time
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(message)

    return Log()


def _monitor(trt: Any, name: str, tell: Tell) -> Any:
    """Reports the percentage; TensorRT calls it from its own threads."""
    phases = Phases()

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self.reported = -STEP_PERCENT

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            phases.start(phase, parent, steps)

        def phase_finish(self, phase: str) -> None:
            phases.finish(phase)

        def step_complete(self, phase: str, step: int) -> bool:
            """False ends the build: an exception must not pass through TensorRT's own frames."""
            phases.step(phase, step)
            percent = round(100 * phases.done(), 1)
            if percent < self.reported + STEP_PERCENT:
                return True
            self.reported = percent
            try:
                tell({"event": "progress", "engine": name, "percent": percent, "phase": phase})
            except BaseException:  # Ctrl-C, or nobody reads our output any more
                return False
            return True

    return Monitor()


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The share of work done, from nested phases: each step of a phase may be a phase of its own."""

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._furthest = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins; `parent` is an open phase or None."""
        self._open[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, number: int) -> None:
        """Step `number`, from 0, of an open phase is over."""
        if name in self._open:
            self._open[name].done = number + 1

    def finish(self, name: str) -> None:
        """A phase ends, with or without all of its steps."""
        self._open.pop(name, None)

    def done(self) -> float:
        """0 to 1, never falling."""
        roots = [name for name, phase in list(self._open.items()) if phase.parent not in self._open]
        now = max((self._share(name) for name in roots), default=0.0)
        self._furthest = max(self._furthest, min(now, 1.0))
        return self._furthest

    def _share(self, name: str) -> float:
        phase = self._open.get(name)
        if phase is None:  # another thread has just ended it
            return 0.0
        inner = [child for child, other in list(self._open.items()) if other.parent == name]
        begun = max((self._share(child) for child in inner), default=0.0)
        return min((phase.done + begun) / phase.steps, 1.0)


def _failed(what: str, engine: dict[str, Any], log: Any) -> BuildFailed:
    lines = (log.errors or log.warnings)[-LAST_LINES:]
    said = "".join(f"\n  {line}" for line in lines) or " nothing"
    return BuildFailed(f"{engine['name']} ({engine['onnx']}): {what}. TensorRT said:{said}")


# --- records ------------------------------------------------------------------------------------------------------


def _earlier(folder: Path, head: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Records by name of engines that the same TensorRT built on the same device."""
    try:
        earlier = json.loads((folder / RECORD).read_bytes())
        same = all(earlier[key] == value for key, value in head.items())
        return {record["name"]: record for record in earlier["engines"]} if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _is_whole(folder: Path, record: dict[str, Any] | None, made_from: str) -> bool:
    if record is None or record.get("made_from") != made_from:
        return False
    path = folder / str(record["engine"])
    return path.is_file() and [path.stat().st_size, sha256_of(path)] == [record["bytes"], record["sha256"]]


def _wanted(recipe: dict[str, Any], only: tuple[str, ...]) -> list[dict[str, Any]]:
    names = [engine["name"] for engine in recipe["engines"]]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise BuildError(f"--only: got {', '.join(unknown)}, the recipe has {', '.join(names)}")
    return [engine for engine in recipe["engines"] if not only or engine["name"] in only]


def _check_names(names: list[str | None]) -> None:
    for name in names:
        if name is not None and (Path(name).name != name or name.startswith(".")):
            raise BuildError(f"{RECIPE}: file name {name!r} leaves the folder; this is no recipe of ours")


def _on_jetson() -> bool:
    return Path("/etc/nv_tegra_release").exists()


def _chip() -> str | None:
    """The Tegra chip in the device tree, as `tegra234`; None where there is none."""
    try:
        compatible = Path("/proc/device-tree/compatible").read_bytes()
    except OSError:
        return None
    found = re.search(rb"tegra\d+", compatible)
    return found.group().decode() if found else None


def _ended() -> str | None:
    """What to do on a board that no JetPack with a fit TensorRT supports; None on another machine."""
    if _chip() not in ENDED:
        return None
    boards, jetpack, version = ENDED[str(_chip())]
    return (
        f"JetPack {jetpack} with TensorRT {version} is the last for {boards}, so no update helps: {INSTEAD}"
    )


# --- command line -------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments, build, and report: sentences for people, or with --json one JSON object a line."""
    given = _parser().parse_args(arguments)
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a console that cannot show a sign of a path or of TensorRT's log
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    folder = Path(given.folder)
    tell = tell_json if given.json else tell_text if sys.stdout.isatty() else tell_log()
    try:
        build(
            folder,
            tell,
            flavor=given.flavor,
            capabilities=tuple(given.compute_capability),
            only=tuple(given.only),
            rebuild=given.rebuild,
        )
    except BuildError as error:
        tell({"event": "error", "message": str(error)})
        return error.exit_status
    except KeyboardInterrupt:
        tell(
            {"event": "error", "message": "interrupted; engines that are complete are kept: repeat to go on"}
        )
        return 130
    tell({"event": "done", "record": RECORD})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Build the TensorRT engines of this bundle for the GPU of this machine. Engines that are up to "
        "date are kept.",
        epilog="Exit status: 0 built, 1 TensorRT could not build an engine, 2 bad input or no suitable TensorRT. "
        "Example: python3 build.py --only full",
    )
    own = str(Path(__file__).resolve().parent)
    parser.add_argument(
        "folder", nargs="?", default=own, help="folder with build.json (default: this file's)"
    )
    parser.add_argument(
        "--flavor", choices=sorted(MODULES), help="default: the one in build.json, or the one installed"
    )
    parser.add_argument(
        "--compute-capability",
        action="append",
        default=[],
        metavar="SM89",
        help="rtx: a GPU to build for; may be repeated",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="build this engine only; may be repeated"
    )
    parser.add_argument("--rebuild", action="store_true", help="also build engines that are up to date")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, for programs")
    return parser


def tell_json(event: dict[str, Any]) -> None:
    """One line for a program that reads along."""
    print(json.dumps(event), flush=True)


def tell_log() -> Tell:
    """Sentences for a file or a pipe: progress in steps of ten percent."""
    reached: dict[str, int] = {}

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            step = int(event["percent"] // 10)
            if reached.get(event["engine"]) == step:
                return
            reached[event["engine"]] = step
            print(f"{event['engine']}: {10 * step} %", flush=True)
        else:
            tell_text(event)

    return tell


def tell_text(event: dict[str, Any]) -> None:
    """One line for a person; progress overwrites itself."""
    kind, engine = event["event"], event.get("engine")
    if kind == "progress":
        print(f"\r{engine}: {event['percent']:5.1f} % {event['phase'][:50]:50}", end="", flush=True)
        return
    clear = "\r" + " " * 78 + "\r" if sys.stdout.isatty() else ""
    if kind == "built":
        text = f"{engine}: {event['bytes'] / 1e6:.1f} MB in {event['seconds']:.1f} s"
    elif kind == "kept":
        text = f"{engine}: is up to date"
    elif kind == "start":
        where = event["device"]["name"] if event["device"] else "no GPU here"
        text = f"{PRODUCT[event['flavor']]} {event['tensorrt']}, {where}"
        text += f"\nengines: {', '.join(event['engines'])}" if event.get("engines") else ""
    elif kind == "error":
        print(clear, end="", flush=True)
        print(f"error: {event['message']}", file=sys.stderr)
        return
    else:
        text = event.get("message") or f"wrote {event['record']}; the bundle can be run on this machine"
    print(clear + text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
