"""`morvit-deploy build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, working
from morvit_deploy.cli.shared.groups import Bundle, Json
from morvit_deploy.cli.shared.places import bundle_folder
from morvit_deploy.cli.shared.ssh import Ssh
from morvit_deploy.exporters.options import Help

if TYPE_CHECKING:
    from morvit_deploy.report import Report

ENGINES = "Engines"


@command(
    "build",
    "morvit-deploy build build/my-model-trt",
    "morvit-deploy build build/my-model-trt --host user@jetson",
)
def build(
    bundle: Bundle = None,
    *,
    flavor: Annotated[
        str | None,
        Help("tensorrt or rtx (default: the bundle's, else what is installed).", "NAME", panel=ENGINES),
    ] = None,
    compute_capability: Annotated[
        tuple[str, ...],
        Help(
            "rtx: a GPU to build for, which need not be present; may be repeated (default: the bundle's).",
            "SM89",
            panel=ENGINES,
        ),
    ] = (),
    rebuild: Annotated[bool, Help("Also build engines that are up to date.", panel=ENGINES)] = False,
    ssh: Ssh,
    json: Json = False,
) -> None:
    """Build the engines of a TensorRT bundle, here or on the device that runs them.

    Engines run with the TensorRT version and on the kind of GPU that they were built for. Engines that are up to date
    are kept.

    With --host the device's own TensorRT builds; the engines are copied back into the bundle, and nothing is left on
    the device.
    """
    place = ssh.place()
    folder = bundle_folder(bundle)
    from morvit_deploy.exporters.trt.build import build_here
    from morvit_deploy.exporters.trt.build_remote import build_on
    from morvit_deploy.exporters.trt.options import TrtOptions

    TrtOptions(flavor=flavor, compute_capability=compute_capability)  # type: ignore[arg-type]  # which it checks
    options: dict[str, Any] = {"flavor": flavor, "compute_capability": compute_capability, "rebuild": rebuild}
    with working("checking the bundle") as (tell, _):
        if place is None:
            record = build_here(folder, tell=tell, **options)
        else:
            record = build_on(folder, place, tell=tell, **options)
    emit(engines_report(record), {"bundle": str(folder), **record}, json)


def engines_report(record: dict[str, Any]) -> Report:
    """What was built, for which GPU, and by which TensorRT."""
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
