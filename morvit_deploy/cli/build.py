"""`morvit-deploy build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from morvit_deploy.report import Report


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
    from morvit_deploy.exporters.trt.build import build_here
    from morvit_deploy.exporters.trt.build_remote import build_on
    from morvit_deploy.exporters.trt.options import TrtOptions

    wanted = tuple(compute_capability or ())
    TrtOptions(flavor=flavor, compute_capability=wanted)  # type: ignore[arg-type]  # which it checks
    options: dict[str, Any] = {"flavor": flavor, "compute_capability": wanted, "rebuild": rebuild}
    with stages("checking the bundle") as tell:
        if place is None:
            record = build_here(folder, tell=tell, **options)
        else:
            record = build_on(folder, place, tell=tell, **options)
    emit(_report(record), {"bundle": str(folder), **record}, as_json)


def _report(record: dict[str, Any]) -> Report:
    from morvit_deploy.agent.trt.build import PRODUCT
    from morvit_deploy.report import Report, Table, size

    rows = [
        (one["engine"], size(one["bytes"]), f"{one['seconds']:.1f}", ", ".join(one["compute_capability"]))
        for one in record["engines"]
    ]
    where = record["device"]["name"] if record["device"] else "no GPU there"
    caption = f"{PRODUCT[record['flavor']]} {record['tensorrt']}, {where}"
    columns = ("engine", "size", "seconds", "built for")
    return Report("Engines", [Table("Engines", columns, rows, numeric=(1, 2), caption=caption)])
