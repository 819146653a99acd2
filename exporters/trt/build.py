"""Building a bundle's engines on this machine, with the TensorRT that is installed. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import morvit_deploy.exporters.targets  # noqa: F401  # reading a manifest asks it for the target
from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.exporters.trt.flavors import is_installed
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import BUILD, LACKS, Flavor

Tell = Callable[[str], None]


def build_here(
    bundle: str | Path,
    *,
    flavor: str | None = None,
    compute_capability: tuple[str, ...] = (),
    rebuild: bool = False,
    tell: Tell = lambda stage: None,
) -> dict[str, Any]:
    """Build the engines of a `trt` bundle; returns the record that is written to `engines.json` beside them.

    `flavor` defaults to the recipe's if installed, else to the other one; `compute_capability` to the recipe's.
    Engines that are up to date are kept, unless `rebuild`. `tell` is called with each stage. Raises BundleError for a
    damaged bundle or one of another target, TargetError when TensorRT is missing, unsupported, or fails to build.
    """
    folder = Path(bundle)
    manifest = checked(folder, flavor)
    used = flavor or (flavor_here(manifest) if may_change(manifest) else None)
    return build_engines(folder / BUILD, tell, flavor=used, capabilities=compute_capability, rebuild=rebuild)


def checked(folder: Path, flavor: str | None) -> Manifest:
    """The manifest; BundleError for another target, TargetError for a recipe that this flavor cannot build."""
    manifest = open_manifest(folder)
    if not isinstance(manifest.target_form, TrtForm):
        raise BundleError(f"{folder} is for target {manifest.target!r}, which has no engines to build")
    if flavor == "rtx":
        for name, instead in LACKS["rtx"].items():
            if getattr(manifest.target_form, name):
                raise TargetError(
                    f"the recipe requires {name}, which flavor 'rtx' does not support: {instead}"
                )
    return manifest


def may_change(manifest: Manifest) -> bool:
    """May another flavor build the recipe? Not if it asks for what RTX does not support."""
    return not any(getattr(TrtForm.of(manifest), name) for name in LACKS["rtx"])


def flavor_here(manifest: Manifest) -> Flavor:
    """The recipe's flavor, unless only the other one is installed."""
    others: list[Flavor] = [name for name in get_args(Flavor) if is_installed(name)]
    own = TrtForm.of(manifest).flavor
    return own if own in others or not others else others[0]


def build_engines(
    folder: Path,
    tell: Tell,
    *,
    flavor: str | None = None,
    capabilities: tuple[str, ...] = (),
    rebuild: bool = False,
) -> dict[str, Any]:
    """`trt_build.build` with events as sentences and errors of this package."""
    try:
        return trt_build.build(
            folder,
            lambda event: report_event(event, tell),
            flavor=flavor,
            capabilities=capabilities,
            rebuild=rebuild,
        )
    except trt_build.BuildError as error:
        raise TargetError(str(error)) from None


def report_event(event: dict[str, Any], tell: Tell) -> None:
    """Call `tell` with a sentence for an event of the build."""
    kind, engine = event["event"], event.get("engine")
    if kind == "progress":
        tell(f"building {engine}: {event['percent']:.0f} %")
    elif kind == "kept":
        tell(f"{engine} is up to date")
    elif kind == "note":
        tell(event["message"])
    elif kind == "start":
        where = event["device"]["name"] if event["device"] else "no GPU there"
        tell(f"building with {trt_build.PRODUCT[event['flavor']]} {event['tensorrt']}, {where}")
    elif kind == "built":
        tell(f"built {event['engine']}: {event['bytes'] / 1e6:.1f} MB in {event['seconds']:.1f} s")
