"""`morvit-deploy build`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import BundleArg, JsonOption, bundle_folder, emit, stages
from morvit_deploy.cli.shared.ssh import (
    HostOption,
    PythonOption,
    RemoteDirOption,
    SshConfigOption,
    SshOption,
    host_of,
)


@command("build")
def build(
    bundle: BundleArg = None,
    host: HostOption = None,
    ssh_option: SshOption = None,
    ssh_config: SshConfigOption = None,
    remote_dir: RemoteDirOption = None,
    python: PythonOption = None,
    flavor: Annotated[
        str | None,
        typer.Option(
            "--flavor",
            help="tensorrt or rtx (default: the bundle's, else what is there).",
            show_default=False,
        ),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-capability",
            metavar="SM89",
            help="rtx: a GPU to build for, which need not be there; may be repeated (default: the bundle's).",
            show_default=False,
        ),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Also engines that are up to date.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the engines of a TensorRT bundle, here or on the device that runs them.

    Engines run with the TensorRT version and on the kind of GPU that they were built for.

    --host: the device's own TensorRT builds, the engines come back into the bundle, and nothing is left there.

    Engines that are up to date are kept.
    """
    place = host_of(host, ssh_option, ssh_config, remote_dir, python)
    folder = bundle_folder(bundle)
    from morvit_deploy.exporters.trt.building import build as run

    with stages("checking the bundle") as tell:
        named: Any = flavor  # which it checks
        wanted = compute_capability or ()
        built = run(folder, host=place, flavor=named, compute_capability=wanted, rebuild=rebuild, tell=tell)
    emit(built.report(), built.as_dict(), as_json)
