"""One mutant against its tests, in a process that a parent with the libraries loaded forks.

The parent must not have imported the package: the mutated module has to be there before any `from … import`.
"""

from __future__ import annotations

import ast
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from edits import Edit
from hypothesis import Phase, settings

LIBRARIES = (
    "torch", "torch.onnx._internal.exporter._registration", "numpy", "onnx", "onnxruntime", "onnxscript",
    "onnxsim", "psutil", "pydantic", "PIL.Image", "safetensors.torch", "filelock", "typer", "rich.console",
    "rich.table",
)  # fmt: skip  # a list
PASSED, NO_TESTS = 0, 5  # exit statuses of pytest; all others are failures
BROKEN = 100  # of a child that could not run pytest


def load_libraries() -> None:
    """Import what every trial needs, once."""
    for name in LIBRARIES:
        import_module(name)
    gc.collect()
    gc.freeze()  # a child that collects would copy all of it


@dataclass
class Trial:
    """The tests of a module, running in a process of their own on a mutant of it."""

    module: str  # without the package
    edit: Edit | None  # None: the module as it is
    tree: ast.Module | None  # with that edit
    tests: Sequence[str]
    seconds: float  # limit
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mutant-")))
    began: float = field(default_factory=time.monotonic)
    took: float = 0.0  # seconds, once it has ended
    process: int = 0

    def start(self) -> Trial:
        """Fork."""
        self.process = os.fork()
        if not self.process:
            status = BROKEN
            try:
                status = self._run()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        return self

    def result(self) -> str | None:
        """Return "survived", "killed" or "timeout" and remove what is left of the process; None while it runs."""
        ended, status = os.waitpid(self.process, os.WNOHANG)
        late = time.monotonic() - self.began > self.seconds
        if not ended and not late:
            return None
        self.took = time.monotonic() - self.began
        self._stop(ended == 0)
        if not ended:
            return "timeout"
        code = os.waitstatus_to_exitcode(status)
        if code in (NO_TESTS, BROKEN):
            raise RuntimeError(f"pytest did not run: {' '.join(self.tests)}")
        return "survived" if code == PASSED else "killed"

    def _stop(self, running: bool) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)  # and what the tests may have started
        if running:
            os.waitpid(self.process, 0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self) -> int:
        """In the child: install the mutant and run the tests."""
        os.setsid()
        log = os.open(os.environ.get("MUTANT_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        tempfile.tempdir = os.environ["TMPDIR"] = str(self.folder)
        if self.tree is not None:
            sys.meta_path.insert(0, Mutant(f"morvit_deploy.{self.module}", self.tree))
        options = [
            "-x",
            "-q",
            "--assert=plain",
            "-p",
            "no:cacheprovider",
            f"--basetemp={self.folder / 'tests'}",
        ]
        return int(pytest.main([*options, *self.tests], plugins=[WithoutShrinking()]))


class WithoutShrinking:
    """A failure of hypothesis is not made small: nobody reads it."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        settings.register_profile("mutants", settings(), phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutants")


class Mutant(MetaPathFinder):
    """Finds one module, whose code is the mutant's."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module, self.tree = module, tree

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None and isinstance(spec.loader, SourceFileLoader)
        code = compile(self.tree, spec.loader.path, "exec", dont_inherit=True)
        spec.loader = Loader(fullname, spec.loader.path, code)
        return spec


class Loader(SourceFileLoader):
    """Loads the code that it was given."""

    def __init__(self, fullname: str, path: str, code: CodeType) -> None:
        super().__init__(fullname, path)
        self._given = code

    def get_code(self, fullname: str) -> Any:
        return self._given
