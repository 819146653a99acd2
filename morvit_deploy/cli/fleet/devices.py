"""The devices of a device file, whose keys are the options of `bench` that fit a device's kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from morvit_deploy.cli.shared.bench_options import Browsing, Measured, Timing
from morvit_deploy.cli.shared.browser import opened_by
from morvit_deploy.cli.shared.console import note
from morvit_deploy.cli.shared.ssh import Ssh
from morvit_deploy.errors import ConfigError, MorvitError
from morvit_deploy.exporters.options import Option, options_of
from morvit_deploy.measuring.browser.options import Invitation
from morvit_deploy.measuring.core.devices import DEVICES
from morvit_deploy.measuring.fleet.device import AMOUNT, FleetDevice, keywords_of
from morvit_deploy.measuring.fleet.file import Entry, read_entries

GROUPS = {"host": Ssh, "browser": Browsing}  # keywords of `bench` that several options make up


def keys_of(kind: str) -> Mapping[str, Option]:
    """Key in the file to the option of the command line that has its name."""
    own = keywords_of(kind)
    options = [option for group in (Measured, Timing) for option in options_of(group) if option.name in own]
    options += [option for name, group in GROUPS.items() if name in own for option in options_of(group)]
    return {option.name.replace("_", "-"): option for option in options}


def read_devices(path: Path, timing: Timing) -> dict[str, FleetDevice]:
    """By name; the options of `timing` are for every device that does not have its own."""
    return {entry.name: _device(entry, path, timing) for entry in read_entries(path, keys_of)}


def _device(entry: Entry, path: Path, timing: Timing) -> FleetDevice:
    common = {name: value for name in AMOUNT if (value := getattr(timing, name)) is not None}
    where, own = f"{path}: device {entry.name!r}", keywords_of(entry.kind)
    if lacking := [name for name in common if name not in own]:
        words = ", ".join(f"--{name}" for name in lacking)
        raise ConfigError(
            f"{where}: {words}: a device of kind {entry.kind} does not have this; write it into the tables of the "
            "devices that do"
        )
    try:
        return FleetDevice(entry.name, entry.kind, common | _keywords(entry, own))
    except MorvitError as error:
        raise type(error)(f"{where}: {error}") from None


def _keywords(entry: Entry, own: tuple[str, ...]) -> dict[str, Any]:
    """Of `bench`: single options as they are, the others as a Host and a Browser."""
    grouped = {one.name for group in GROUPS.values() for one in fields(group)}
    keywords = {name: value for name, value in entry.values.items() if name not in grouped}
    if "host" in own:
        here = "host" not in entry.values and DEVICES[entry.kind].is_here()  # a Jetson may be this machine
        host = Ssh(**_of(entry, Ssh)).place(here=here)
        keywords |= {"host": host} if host else {}
    if "browser" in own:
        keywords["browser"] = opened_by(
            Browsing(**_of(entry, Browsing)), lambda invitation: _say(entry.name, invitation)
        )
    return keywords


def _of(entry: Entry, group: type) -> dict[str, Any]:
    return {one.name: entry.values[one.name] for one in fields(group) if one.name in entry.values}


def _say(name: str, invitation: Invitation) -> None:
    from morvit_deploy.cli.shared.browser import show

    note(f"{name} waits for its page to be opened")
    show(invitation)
