"""Building a bundle's engines on a device over SSH, with the TensorRT that is there. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from morvit_deploy.agent.trt.build import RECORD
from morvit_deploy.agent.trt.engines import EngineError, read_engine, read_engines
from morvit_deploy.errors import LostError, OutputError, TargetError
from morvit_deploy.exporters.trt.build import checked, may_change, report_event
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import BUILD, TIMING_CACHE
from morvit_deploy.files import locked_folder
from morvit_deploy.remote.dialogue import Dropped
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.session import Session
from morvit_deploy.remote.shipment import Shipment

BUILD_TIMEOUT_S = 4 * 3600.0  # a lost device is noticed earlier, by its silence
HEAD = ("flavor", "tensorrt", "device")  # of a record: the builder keeps engines only where these are equal
_PLACE = "0"  # of the bundle in the agent's folder
_PARTIAL = ".engines.partial-"


def build_on(
    bundle: str | Path,
    host: Host,
    *,
    flavor: str | None = None,
    compute_capability: tuple[str, ...] = (),
    rebuild: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
    """As `build_here`, on `host`; the engines and their record are copied into the bundle, all or none.

    The recipe's flavor is used if the device has it, else the other one. Engines that the device built before and
    that are up to date are kept. Raises BundleError, TargetError when the device cannot build, OutputError when the
    engines cannot be written here, LostError when the connection is lost.
    """
    folder = Path(bundle)
    manifest = checked(folder, flavor)
    wanted, build = flavor or TrtForm.of(manifest).flavor, folder / BUILD
    strict = flavor is not None or not may_change(manifest)
    options = ["--rebuild"] if rebuild else []
    options += [word for name in compute_capability for word in ("--compute-capability", name)]
    shipment = {
        f"{_PLACE}/{file.path}": folder / file.path
        for file in manifest.files
        if file.path.startswith(f"{BUILD}/")
    }

    def settle(session: Session) -> Shipment:
        look = {"do": "check_builder", "flavor": wanted, "strict": strict}
        head = session.ask(look, "looking for TensorRT")
        options[:0] = ["--flavor", head["flavor"]]
        return {} if rebuild else fitting_engines(build, head, f"{_PLACE}/{BUILD}")

    try:
        with (
            _beside(build) as scratch,
            Session(
                host, shipment, (), tell, settle=settle, hear=lambda event: report_event(event, tell)
            ) as session,
        ):
            record = build_there(session, f"{_PLACE}/{BUILD}", options)
            names = [engine["engine"] for engine in record["engines"]]
            session.fetch(f"{_PLACE}/{BUILD}", [*names, RECORD], scratch)
            with contextlib.suppress(TargetError, Dropped):  # RTX has none
                if record["flavor"] == "tensorrt":
                    session.fetch(f"{_PLACE}/{BUILD}", [TIMING_CACHE], scratch)
            _take_over(scratch, build)
    except Dropped as drop:
        raise LostError(
            f"{host.address} was lost {drop}; the bundle here is unchanged. Repeat the build, which also removes "
            "what the agent left on the device"
        ) from None
    return record


def build_there(session: Session, folder: str, options: list[str], shared: str = "") -> dict[str, Any]:
    """Have the agent build a folder of the session; returns the record. Dropped when the connection is lost."""
    request = {"do": "build", "folder": folder, "shared": shared or folder, "options": options}
    return session.ask(request, "building engines", BUILD_TIMEOUT_S)


def fitting_engines(build: Path, head: dict[str, Any], place: str) -> Shipment:
    """Engines of a folder that a device with this record head would keep, as a shipment to `place`; may be empty."""
    try:
        record = read_engines(build)
    except EngineError:
        return {}
    if any(record.get(name) != head[name] for name in HEAD):
        return {}
    names = [RECORD, TIMING_CACHE, *(engine["engine"] for engine in record["engines"])]
    return {f"{place}/{name}": build / name for name in names if (build / name).is_file()}


@contextlib.contextmanager
def _beside(build: Path) -> Iterator[Path]:
    """A temporary folder on the same disk; removes those that killed runs left."""
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(locked_folder(build, _PARTIAL)) / "engines"
            scratch.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write to {build}: {error.strerror}; make it writable") from None
        try:
            yield scratch
        except OSError as error:
            raise OutputError(
                f"the engines were not written to {build}: {error.strerror}; free some space, or make it writable"
            ) from None


def _take_over(scratch: Path, build: Path) -> None:
    """Check the hashes, then move everything into place; the old record is removed first, the new one comes last."""
    try:
        record = read_engines(scratch)
        for engine in record["engines"]:
            read_engine(scratch, record, engine["name"])
    except EngineError as error:
        raise TargetError(f"the files from the device are damaged: {error}; repeat the build") from None
    (build / RECORD).unlink(missing_ok=True)
    places = sorted(scratch.iterdir(), key=lambda path: path.name == RECORD)
    for path in places:
        path.replace(build / path.name)
