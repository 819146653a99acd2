"""Options of the commands that reach a device over SSH. Light: imported by `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morvit_deploy.errors import ConfigError

if TYPE_CHECKING:
    from morvit_deploy.remote.host import Host

HostOption = Annotated[
    str | None,
    typer.Option(
        "--host",
        help="The device, as ssh takes it: user@board, or a name of your ssh config.",
        show_default=False,
    ),
]
SshOption = Annotated[
    list[str] | None,
    typer.Option("--ssh-option", help="For ssh -o, as in Port=2222; may be repeated.", show_default=False),
]
SshConfigOption = Annotated[
    Path | None, typer.Option("--ssh-config", help="For ssh -F (default: your own).", show_default=False)
]
RemoteDirOption = Annotated[
    str | None,
    typer.Option(
        "--remote-dir",
        help="Folder on the device for a temporary one (default: $TMPDIR or /tmp).",
        show_default=False,
    ),
]
PythonOption = Annotated[
    str | None,
    typer.Option("--python", help="Interpreter on the device (default: python3).", show_default=False),
]


def host_of(
    address: str | None,
    options: list[str] | None,
    config: Path | None,
    folder: str | None,
    python: str | None,
    *,
    here: bool = False,
) -> Host | None:
    """The device to reach, or None; ConfigError for options of ssh without one.

    With `here` a device that is this machine takes --remote-dir and --python too.
    """
    given = {"--ssh-option": options, "--ssh-config": config, "--remote-dir": folder, "--python": python}
    if address is None:
        meant = ("--ssh-option", "--ssh-config") if here else given
        if words := [name for name in meant if given[name] is not None]:
            raise ConfigError(f"{', '.join(words)} say how to reach --host; give it too, or leave them out")
    from morvit_deploy.remote.host import Host

    if address is None:
        return Host.here(folder or "", python) if here else None
    return Host(address, tuple(options or ()), config, folder or "", python or "python3")
