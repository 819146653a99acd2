"""A device and how to reach it: an OpenSSH destination and the user's own options."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from morvit_deploy.errors import ConfigError


@dataclass(frozen=True)
class Host:
    """A destination that `ssh` understands (`user@board`, `ssh://user@board:2222`, a name of the user's config)."""

    address: str
    options: tuple[str, ...] = ()  # each for `ssh -o`, after this tool's own, which cannot be weakened
    config: Path | None = None  # for `ssh -F`
    folder: str = ""  # on the device, for the agent's own folder; empty: $TMPDIR or /tmp
    python: str = "python3"  # on the device
    is_here: bool = False  # no SSH: the device is this machine

    @staticmethod
    def here(folder: str = "", python: str | None = None) -> Host:
        """This machine, with this interpreter unless another is named."""
        return Host("this machine", folder=folder, python=python or sys.executable, is_here=True)

    def __post_init__(self) -> None:
        if not self.address.strip() or self.address.startswith("-"):
            raise ConfigError(
                f"--host: got {self.address!r}, expected user@host or a name of your ssh config"
            )
        for option in self.options:
            if "=" not in option and " " not in option:
                raise ConfigError(f"--ssh-option: got {option!r}, expected NAME=VALUE, as in Port=2222")
        if self.config is not None and not self.config.is_file():
            raise ConfigError(f"--ssh-config: {self.config} is not a file")

    @property
    def own_arguments(self) -> list[str]:
        """The user's own settings, as arguments of ssh."""
        config = [] if self.config is None else ["-F", str(self.config)]
        return [*config, *(word for option in self.options for word in ("-o", option))]

    def command(self, tool: str = "ssh") -> str:
        """The command with which the user reaches the same device by hand."""
        return shlex.join([tool, *self.own_arguments, self.address])
