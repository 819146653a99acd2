"""morvit-deploy: trained MoR-ViT checkpoints to verified static graphs.

The public functions load on first use, so that importing the package, and running a bundle, needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
