"""Core ML, on this Mac or on an iPhone connected to it, as `bench` measures it. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreml.sdk.bundle import Package
from morvit_deploy.exporters.functions.devices import Item, ProjectTexts
from morvit_deploy.files import temporary
from morvit_deploy.measuring.apple.checklist import (
    MacState,
    Phone,
    mac_items,
    phone_items,
    read_state,
    the_phone,
)
from morvit_deploy.measuring.apple.dispatching import Backend

NEWEST_IOS = 18  # that a package can ask for


class CoreMlRuntime:
    """An `AppleRuntime`."""

    expected = "morvit_deploy.exporters.coreml.run:open_interpreted"
    project = ProjectTexts(
        expected="computed by an interpreter of Core ML's operators with fp16 rounding, where the project was "
        "written",
        requirements="coremltools>=9.0,<10\n",
        note="""\
An iPhone must be connected by cable, unlocked, with Developer Mode on (Settings, Privacy & Security). coremltools
builds and installs a small runner app on it; name the team that signs it with `--team ID` if Xcode asks for one. Keep
the screen on.""",
        on_a_phone=".venv/bin/python bench.py --device iphone",
    )

    def needed(
        self, package: Package | None, device: str, wanted: str | None
    ) -> tuple[list[Item], Phone | None]:
        """What `device` needs, and the phone; `wanted` is its name or UDID."""
        state = read_state(phone=device == "iphone")
        ios, pictures = (NEWEST_IOS, True) if package is None else (package.ios, package.input == "uint8")
        if device == "mac":
            return mac_items(state, ios, pictures), None
        state = _with_phones(state)
        found = the_phone(state.phones or (), wanted)
        return phone_items(state, ios, wanted), found if isinstance(found, Phone) else None

    @contextmanager
    def opened(self, package: Package, phone: Phone | None, team: str | None) -> Iterator[Backend]:
        """Core ML here or on the phone; imports coremltools."""
        with temporary("bench") as work:
            if phone is None:
                from morvit_deploy.measuring.apple.mac import Mac

                yield Mac(package, work)
                return
            from morvit_deploy.measuring.apple.phone import IPhone

            device = IPhone(package, work, phone, team)
            try:
                yield device
            finally:
                device.close()


def _with_phones(state: MacState) -> MacState:
    """List the phones if the tools for it are installed."""
    if state.devicectl is None or not state.bridge:
        return state
    from morvit_deploy.measuring.apple.phone import list_phones

    try:
        return replace(state, phones=list_phones(state.devicectl))
    except TargetError as error:
        return replace(state, phones_problem=str(error))


RUNTIME = CoreMlRuntime()
