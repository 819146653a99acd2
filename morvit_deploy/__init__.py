"""morvit-deploy: trained MoR-ViT checkpoints to verified static graphs.

The public functions load on first use, so that importing the package, and running a bundle, needs no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 10):  # noqa: UP036  # pip refuses it; from the source, a line and no SyntaxError
    sys.exit("morvit-deploy requires Python 3.10 or newer; this is {}.{}.{}".format(*sys.version_info))

if TYPE_CHECKING:
    from morvit_deploy.exporters.api import export
    from morvit_deploy.exporters.targets import open_bundle
    from morvit_deploy.exporters.verification import verify
    from morvit_deploy.measuring.bench import bench
    from morvit_deploy.model.checkpoint import load_checkpoint, save_checkpoint
    from morvit_deploy.planning.rounds import calibrate
    from morvit_deploy.sources.conversion import convert

__all__ = [
    "bench",
    "calibrate",
    "convert",
    "export",
    "load_checkpoint",
    "open_bundle",
    "save_checkpoint",
    "verify",
]

_HOMES = {
    "bench": "morvit_deploy.measuring.bench",
    "calibrate": "morvit_deploy.planning.rounds",
    "convert": "morvit_deploy.sources.conversion",
    "export": "morvit_deploy.exporters.api",
    "load_checkpoint": "morvit_deploy.model.checkpoint",
    "open_bundle": "morvit_deploy.exporters.targets",
    "save_checkpoint": "morvit_deploy.model.checkpoint",
    "verify": "morvit_deploy.exporters.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'morvit_deploy' has no attribute {name!r}; it has: {', '.join(__all__)}"
        )
    from morvit_deploy.machine.extras import names_extra

    with names_extra(name):
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
