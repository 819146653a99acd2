"""Apple's Core AI runtime behind plain functions: one background event loop for each asset that is open."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreai.printed.asset import open_asset
from morvit_deploy.exporters.coreai.printed.probes import write_copy
from morvit_deploy.exporters.functions.running import Predict
from morvit_deploy.files import temporary

Result = TypeVar("Result")
STDERR = 2


class Executable:
    """An asset that is loaded; it is freed when the last of its functions is closed.

    The runtime's calls are coroutines, so that a thread of this object runs an event loop for them.
    """

    def __init__(self, asset: Path, keep: ExitStack | None = None) -> None:
        """`keep` is closed with it. Raises BundleError for an asset that the runtime does not load."""
        self.asset, self._open, self._keep = asset, 0, keep or ExitStack()
        with self._keep:  # closed if the asset is refused
            opened = open_asset(asset)
            self._keep = self._keep.pop_all()
        self._model: Any = None  # Core AI's own class
        self._stack = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="Core AI", daemon=True)
        self._thread.start()
        try:
            with native_quiet():
                executable = opened.executable()
                self._model = self._wait(self._stack.enter_async_context(executable))
        except RuntimeError as error:
            self._end()
            raise BundleError(f"Core AI cannot load {asset}: {error}; export it again") from error
        except BaseException:  # an interrupt, too: the loop's thread must end
            self._end()
            raise

    @property
    def is_closed(self) -> bool:
        """Were all of its functions closed?"""
        return self._model is None

    @property
    def functions(self) -> tuple[str, ...]:
        """Their names, in the asset's order."""
        return tuple(self._model.function_names)

    def load(self, function: str) -> Predict:
        """A function, from arrays by name to arrays by name; BundleError for one that the asset does not have."""
        if function not in self.functions:
            raise BundleError(f"{self.asset} has no function {function!r}; export it again")
        from coreai.runtime import NDArray

        with native_quiet():
            call = self._model.load_function(function)
        self._open += 1

        async def answer(feeds: Arrays) -> Arrays:
            found = await call({name: NDArray(np.ascontiguousarray(value)) for name, value in feeds.items()})
            # copies: the arrays are the runtime's own memory
            return {name: np.array(value.numpy()) for name, value in found.items()}

        return lambda feeds, probes: self._wait(answer(feeds))

    def free(self) -> None:
        """One of its functions is closed."""
        self._open -= 1
        self.close_unused()

    def close_unused(self) -> None:
        """End it unless one of its functions is open."""
        if self._open <= 0 and self._model is not None:
            self._model = None
            try:
                self._wait(self._stack.aclose())
            finally:
                self._end()

    def _wait(self, task: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._keep.close()


def open_executable(
    asset: Path, values: Mapping[str, Mapping[str, str]], *, wide: bool = False
) -> Executable:
    """An asset whose functions also return values inside; shared while it is open: `verify` opens every bucket.

    With `wide`, fp16 products are summed in float32.
    """
    changed = tuple((file, file.stat().st_mtime_ns) for file in sorted(asset.rglob("*")))
    key = (changed, bool(values), wide)
    executable = _OPEN.get(key)
    if executable is None or executable.is_closed:
        executable = _OPEN[key] = _copied(asset, values, wide) if values or wide else Executable(asset)
    return executable


def _copied(asset: Path, values: Mapping[str, Mapping[str, str]], wide: bool) -> Executable:
    """A copy of the asset, which also returns values inside, or sums in float32."""
    with ExitStack() as stack:
        copy = stack.enter_context(temporary("coreai")) / asset.name
        try:
            with native_quiet():
                write_copy(asset, values, copy, wide=wide)
        except BundleError:
            raise
        except Exception as error:  # the parser raises types of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BundleError(
                f"{asset} has not the values that its manifest lists: {reason}; export it again"
            ) from error
        return Executable(copy, stack.pop_all())


_OPEN: WeakValueDictionary[object, Executable] = WeakValueDictionary()


@contextmanager
def native_quiet() -> Iterator[None]:
    """Hide what the native library writes to the process's standard error."""
    sys.stderr.flush()
    kept = os.dup(STDERR)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)
