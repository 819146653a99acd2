"""Options of `bench` for several devices. Light: imported by `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from morvit_deploy.cli.shared.derived import Group
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help

if TYPE_CHECKING:
    from morvit_deploy.cli.shared.bench import BenchWords
    from morvit_deploy.cli.shared.ssh import Ssh


@dataclass(frozen=True)
class FleetOptions(Group):
    """Where the devices are listed, and whether they are measured at once."""

    panel = "Several devices"
    device_file: Annotated[
        Path | None,
        Help(
            "TOML file with a [[device]] table for each: name, kind (as --device) and the options of its kind. Exit "
            "status 1 if a device drops out, after the others were measured.",
            "FILE",
        ),
    ] = None
    at_once: Annotated[
        bool,
        Help(
            "For --device-file: devices on other machines at the same time; this machine is measured alone."
        ),
    ] = False

    def check(self, words: BenchWords, ssh: Ssh) -> None:
        """ConfigError for options that say what one device is, or that need one result."""
        if self.device_file is None:
            if self.at_once:
                raise ConfigError("--at-once is for --device-file; give it too, or leave it out")
            return
        from morvit_deploy.cli.shared.bench import given

        one = {
            "--device": words.device != "cpu",
            "--tf32": words.measured.tf32,
            **{
                _dashed(name): value for group in (ssh, words.browsing) for name, value in vars(group).items()
            },
        }
        if said := given(one):
            raise ConfigError(f"{said}: for one device; write it into its table of {self.device_file}")
        other = {
            **{_dashed(name): value for name, value in vars(words.apple).items()},
            "--verdict": words.verdict.verdict,
            "--profile": words.measured.profile,
            "--baseline": words.output.baseline,
        }
        if said := given(other):
            raise ConfigError(f"{said}: for one device; run `bench` on it alone, without --device-file")


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"
