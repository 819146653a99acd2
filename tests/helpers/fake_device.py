"""A Jetson that is not there: a `python` whose TensorRT builds and runs made-up engines, over a made-up file tree.

The agent's processes start with that `python` and import the module `tensorrt` that it has. tegrastats prints the
power that stands in a file, and the first launch of an engine changes it.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

VERSION = "10.3.0"
IDLE_MW, BUSY_MW = 4000, 9000
_MODULE = """
import sys
sys.path += [{tests!r}]
import fake_device
fake_device.become(**{how!r})
"""


def make_python(folder: Path, **how: Any) -> Path:
    """A command that is this Python with the module `tensorrt` of `become(**how)`."""
    folder.mkdir()
    text = _MODULE.format(tests=str(Path(__file__).parent), how=how)
    (folder / "tensorrt.py").write_text(text)
    command = folder / "python"
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    command.chmod(0o755)
    return command


def tegrastats(mw: Path, lines: str) -> str:
    """A script that prints a line, whose POWER is the number in the file, over and over."""
    mw.write_text(str(IDLE_MW))
    return f"while true; do read -r mw < '{mw}'; echo \"{lines}\" | /bin/sed s/POWER/$mw/g; /bin/sleep 0.005; done"


def become(
    root: str = "/",
    commands: str | None = None,
    mw: str | None = None,
    no_gpu: bool = False,
    build_s: float = 0.0,
    refuses: bool = False,
) -> None:
    """Make this process one of the device's; called by the module `tensorrt` there."""
    import fake_cuda
    import fake_tensorrt

    from morvit_deploy.agent.jetson import system, watch

    patch = pytest.MonkeyPatch()
    builds, runs = fake_tensorrt.fake_tensorrt(patch, VERSION), fake_cuda.fake_gpu(patch, VERSION)
    patch.undo()
    builds.refuses = refuses
    trt = ModuleType("tensorrt")
    vars(trt).update(vars(builds))
    vars(trt).update(vars(runs))
    trt.Builder = _builder(builds, build_s)
    trt.OnnxParser = _parser(builds)
    trt.Runtime = _runtime(runs)
    sys.modules["tensorrt"] = trt
    real = ctypes.CDLL

    def library(name: Any, *more: Any, **options: Any) -> Any:
        if name != "libcuda.so.1":
            return real(name, *more, **options)
        if no_gpu:
            raise OSError(f"{name}: cannot open shared object file")
        return trt.driver

    ctypes.CDLL = library  # type: ignore[assignment, misc]
    system.System.__init__.__defaults__ = (root, commands)  # type: ignore[attr-defined]
    watch.Watch.__init__.__kwdefaults__ |= {"idle_s": 0.5, "interval_ms": 10}  # type: ignore[attr-defined]
    if mw is not None:
        work = fake_cuda.FakeContext.work

        def busy(context: Any) -> None:
            if Path(mw).read_text() != str(BUSY_MW):
                Path(f"{mw}.new").write_text(str(BUSY_MW))
                Path(f"{mw}.new").replace(mw)  # never half-written for the one who reads
            work(context)

        fake_cuda.FakeContext.work = busy  # type: ignore[method-assign]


def _parser(builds: Any) -> Any:
    class Parser(builds.OnnxParser):  # type: ignore[misc]
        def __init__(self, network: Any, log: Any) -> None:
            super().__init__(network, log)
            self.network = network

        def parse_from_file(self, path: str) -> bool:
            self.network.path = path
            return bool(super().parse_from_file(path))

    return Parser


def _runtime(runs: Any) -> Any:
    class Runtime(runs.Runtime):  # type: ignore[misc]
        def deserialize_cuda_engine(self, content: bytes) -> Any:
            told = json.loads(content)
            whole = told | {"onnx": str(Path(sys.argv[2], told["onnx"]))}  # of `agent.pyz worker FOLDER …`
            return super().deserialize_cuda_engine(json.dumps(whole).encode())

    return Runtime


def _builder(builds: Any, build_s: float) -> Any:
    import fake_tensorrt

    class Builder(fake_tensorrt.Builder):
        def __init__(self, log: Any) -> None:
            super().__init__(builds, log)

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            built = super().build_serialized_network(network, config)
            time.sleep(build_s)
            path = Path(network.path)  # below the bundle's folder, which is another one for the next agent
            return built and json.dumps({"onnx": f"{path.parent.name}/{path.name}", "batch": 1}).encode()

    return Builder
