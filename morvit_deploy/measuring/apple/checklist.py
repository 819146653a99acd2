"""Checks and lists what a measurement on Apple's devices needs. No torch.

`read_state` asks the system; the lists are pure functions of its result.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreml.sdk.load import INSTALL, quiet
from morvit_deploy.exporters.functions.devices import Item, macos_item, oldest_macos

XCODE = (
    "install Xcode from the App Store, open it once, and run `sudo xcode-select -s /Applications/Xcode.app`"
)


@dataclass(frozen=True)
class Phone:
    """A device as `devicectl` lists it."""

    name: str
    udid: str
    system: str  # iOS version
    state: str  # connected, available, …
    developer_mode: str


@dataclass(frozen=True)
class MacState:
    """What this machine has; None: not found."""

    system: str
    macos: str | None
    coremltools: str | None
    bridge: bool  # coremltools' extension that calls Core ML
    pillow: bool = True
    xcodebuild: str | None = None
    devicectl: str | None = None
    phones: tuple[Phone, ...] | None = None  # None: could not be listed
    phones_problem: str = ""


def read_state(phone: bool) -> MacState:
    """Look for everything, for Xcode's tools only with `phone`. Starts and changes nothing."""
    macos = platform.mac_ver()[0] or None
    try:
        version: str | None = importlib.metadata.version("coremltools")
    except importlib.metadata.PackageNotFoundError:
        version = None
    state = MacState(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        macos=macos,
        coremltools=version,
        bridge=version is not None and _has_bridge(),
        pillow=importlib.util.find_spec("PIL") is not None,
    )
    if not phone:
        return state
    devicectl = shutil.which("devicectl") or _xcrun("devicectl")
    return replace(state, xcodebuild=shutil.which("xcodebuild"), devicectl=devicectl)


def mac_items(state: MacState, ios: int, pictures: bool) -> list[Item]:
    """What `--device mac` needs for a package for this iOS, which takes pictures or arrays."""
    oldest = oldest_macos(ios)
    otherwise = ", or export again with --ios 17" if oldest == 15 else ""
    items = [
        macos_item(oldest, f"a package of iOS {ios}", state.macos, state.system, otherwise),
        Item(
            "coremltools 9",
            state.coremltools or "not installed",
            state.coremltools is not None and state.coremltools.split(".")[0] == "9",
            INSTALL,
        ),
        Item(
            "coremltools' bridge to Core ML",
            "loads" if state.bridge else "does not load",
            state.bridge,
            "it is only in the macOS wheel: install coremltools with a Python of python.org or Homebrew on a Mac",
        ),
    ]
    if pictures:
        found = "installed" if state.pillow else "not installed"
        items.append(Item("Pillow, for picture inputs", found, state.pillow, "python -m pip install pillow"))
    return items


def phone_items(state: MacState, ios: int, wanted: str | None) -> list[Item]:
    """What `--device iphone` needs on top of coremltools: Xcode's tools and one phone."""
    mac = [item for item in mac_items(state, ios, False) if not item.what.startswith("macOS")]
    here = state.macos or f"this is {state.system}"
    tools = [
        Item("macOS, to reach an iPhone from", here, state.macos is not None, "run this on a Mac"),
        *mac,
        Item("xcodebuild", state.xcodebuild or "not found", state.xcodebuild is not None, XCODE),
        Item(
            "xcrun devicectl (Xcode 15 or newer)",
            state.devicectl or "not found",
            state.devicectl is not None,
            XCODE,
        ),
    ]
    return [*tools, _phone_item(state, ios, wanted)]


def the_phone(phones: Sequence[Phone], wanted: str | None) -> Phone | str:
    """The connected phone of this name or UDID, or why there is none and what to do."""
    listed = "; ".join(f"{phone.name} ({phone.udid}, iOS {phone.system}, {phone.state})" for phone in phones)
    if not phones:
        return "no iPhone is known to this Mac; connect one by cable, unlock it and tap Trust"
    meant = [phone for phone in phones if wanted in (None, phone.name, phone.udid)]
    if not meant:
        return f"no iPhone is called {wanted!r}; there are: {listed}"
    ready = [phone for phone in meant if phone.state == "connected"]
    if not ready:
        return f"none is connected: {listed}; connect it by cable, unlock it, and turn on Developer Mode"
    if len(ready) > 1:
        return f"{len(ready)} iPhones are connected, choose one with --phone NAME_OR_UDID: {listed}"
    return ready[0]


def demand(items: Sequence[Item], device: str, way_out: str) -> None:
    """Raise TargetError with the whole list when anything is missing."""
    if all(item.fits for item in items):
        return
    listed = "\n".join(str(item) for item in items)
    raise TargetError(f"--device {device} cannot measure here. Looked for:\n{listed}\n{way_out}")


def _phone_item(state: MacState, ios: int, wanted: str | None) -> Item:
    what = "one iPhone" if wanted is None else f"the iPhone {wanted!r}"
    if state.phones is None:
        return Item(what, state.phones_problem or "not looked for, as the tools above are missing", False)
    phone = the_phone(state.phones, wanted)
    if isinstance(phone, str):
        return Item(what, phone, False)
    if phone.developer_mode not in ("", "enabled"):
        remedy = "turn it on in Settings, Privacy & Security, Developer Mode"
        return Item(what, f"{phone.name}, Developer Mode {phone.developer_mode}", False, remedy)
    version = phone.system.split(".")[0]
    if version.isdigit() and int(version) < ios:
        remedy = f"update it, or export again with --ios {max(17, int(version))}"
        return Item(
            what, f"{phone.name} has iOS {phone.system}, the package requires iOS {ios}", False, remedy
        )
    return Item(what, f"{phone.name}, iOS {phone.system}", True)


def _has_bridge() -> bool:
    try:
        with quiet():
            importlib.import_module("coremltools.libcoremlpython")
    except Exception:  # the import may fail in any way, such as on a foreign binary; then there is no bridge
        return False
    return True


def _xcrun(tool: str) -> str | None:
    if shutil.which("xcrun") is None:
        return None
    found = subprocess.run(["xcrun", "--find", tool], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
