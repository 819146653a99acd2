"""`morvit-deploy build`."""

from __future__ import annotations

from typing import Annotated, Any

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, working
from morvit_deploy.cli.shared.groups import Bundle, Json
from morvit_deploy.cli.shared.places import bundle_folder
from morvit_deploy.cli.shared.ssh import Ssh
from morvit_deploy.exporters.options import Help

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
    from morvit_deploy.exporters.trt.building import build as run

    with working("checking the bundle") as (tell, _):
        named: Any = flavor  # which it checks
        built = run(
            folder,
            host=place,
            flavor=named,
            compute_capability=compute_capability,
            rebuild=rebuild,
            tell=tell,
        )
    emit(built.report(), built.as_dict(), json)
