"""Options of the commands that reach a device over SSH. Light: imported by `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from morvit_deploy.cli.shared.derived import Group
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help

if TYPE_CHECKING:
    from morvit_deploy.remote.host import Host


@dataclass(frozen=True)
class Ssh(Group):
    """Which device, and how to reach it."""

    panel = "A device over SSH"
    host: Annotated[
        str | None,
        Help("The device as ssh takes it: user@board, or a name in your ssh config.", metavar="HOST"),
    ] = None
    ssh_option: Annotated[
        tuple[str, ...], Help("Passed to ssh -o, as in Port=2222; may be repeated.", "K=V")
    ] = ()
    ssh_config: Annotated[Path | None, Help("Passed to ssh -F (default: your own).", "FILE")] = None
    remote_dir: Annotated[
        str | None, Help("Folder on the device for a temporary one (default: $TMPDIR or /tmp).", "DIR")
    ] = None
    python: Annotated[str | None, Help("Interpreter on the device (default: python3).", "PYTHON")] = None

    def place(self, *, here: bool = False) -> Host | None:
        """The device to reach, or None; ConfigError for options of ssh without a host.

        With `here` a device that is this machine takes --remote-dir and --python too.
        """
        from morvit_deploy.remote.host import Host

        if self.host is not None:
            return Host(
                self.host, self.ssh_option, self.ssh_config, self.remote_dir or "", self.python or "python3"
            )
        given: dict[str, object] = {"--ssh-option": self.ssh_option, "--ssh-config": self.ssh_config}
        if not here:
            given |= {"--remote-dir": self.remote_dir, "--python": self.python}
        if words := [name for name, value in given.items() if value not in (None, ())]:
            raise ConfigError(f"{', '.join(words)} say how to reach --host; give it too, or leave them out")
        return Host.here(self.remote_dir or "", self.python) if here else None
