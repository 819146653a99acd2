"""morvit-deploy: trained MoR-ViT checkpoints to verified static graphs.

The public names load on first use, so that importing the package, and running a bundle, needs no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 10):  # noqa: UP036  # pip refuses it; from the source, a line and no SyntaxError
    sys.exit("morvit-deploy requires Python 3.10 or newer; this is {}.{}.{}".format(*sys.version_info))

if TYPE_CHECKING:
    from morvit_deploy.errors import (
        AccuracyError,
        AnswerError,
        BundleError,
        CheckFailed,
        CheckpointError,
        ConfigError,
        ImageError,
        IncompleteError,
        KeywordError,
        LostError,
        MissingExtraError,
        MorvitError,
        MorvitWarning,
        OutputError,
        ParityError,
        PlanError,
        PrecisionError,
        StructureError,
        TargetError,
    )
    from morvit_deploy.exporters.api import export
    from morvit_deploy.exporters.prediction import predict
    from morvit_deploy.exporters.targets import open_bundle
    from morvit_deploy.exporters.trt.building import build
    from morvit_deploy.exporters.verification import verify
    from morvit_deploy.inspecting.inspection import inspect
    from morvit_deploy.machine.diagnosis import doctor
    from morvit_deploy.measuring.bench import bench
    from morvit_deploy.measuring.browser.options import Browser
    from morvit_deploy.measuring.compare.compare import compare
    from morvit_deploy.measuring.fleet.fleet import bench_fleet
    from morvit_deploy.measuring.payoff.rounds import payoff
    from morvit_deploy.model.checkpoint import load_checkpoint, save_checkpoint
    from morvit_deploy.model.merges.tokens import merge_tokens
    from morvit_deploy.planning.merges import calibrate_merges
    from morvit_deploy.planning.rounds import calibrate, calibrate_shard, merge_shards
    from morvit_deploy.remote.host import Host
    from morvit_deploy.sources.conversion import convert

    __version__: str

__all__ = [
    "AccuracyError",
    "AnswerError",
    "Browser",
    "BundleError",
    "CheckFailed",
    "CheckpointError",
    "ConfigError",
    "Host",
    "ImageError",
    "IncompleteError",
    "KeywordError",
    "LostError",
    "MissingExtraError",
    "MorvitError",
    "MorvitWarning",
    "OutputError",
    "ParityError",
    "PlanError",
    "PrecisionError",
    "StructureError",
    "TargetError",
    "bench",
    "bench_fleet",
    "build",
    "calibrate",
    "calibrate_merges",
    "calibrate_shard",
    "compare",
    "convert",
    "doctor",
    "export",
    "inspect",
    "load_checkpoint",
    "merge_shards",
    "merge_tokens",
    "open_bundle",
    "payoff",
    "predict",
    "save_checkpoint",
    "verify",
]

_HOMES = {
    "Browser": "measuring.browser.options",
    "Host": "remote.host",
    "bench": "measuring.bench",
    "bench_fleet": "measuring.fleet.fleet",
    "build": "exporters.trt.building",
    "calibrate": "planning.rounds",
    "calibrate_merges": "planning.merges",
    "calibrate_shard": "planning.rounds",
    "compare": "measuring.compare.compare",
    "convert": "sources.conversion",
    "doctor": "machine.diagnosis",
    "export": "exporters.api",
    "inspect": "inspecting.inspection",
    "load_checkpoint": "model.checkpoint",
    "merge_shards": "planning.rounds",
    "merge_tokens": "model.merges.tokens",
    "open_bundle": "exporters.targets",
    "payoff": "measuring.payoff.rounds",
    "predict": "exporters.prediction",
    "save_checkpoint": "model.checkpoint",
    "verify": "exporters.verification",
} | {name: "errors" for name in __all__ if name.endswith(("Error", "Warning")) or name == "CheckFailed"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _HOMES:
        from morvit_deploy.machine.extras import names_extra

        with names_extra(name):
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    from difflib import get_close_matches

    close = get_close_matches(name, __all__, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(__all__)}"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {hint}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])


def _version() -> str:
    """Of the installed package, else of the source tree that this file is in."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("morvit-deploy")
    except PackageNotFoundError:
        return _source_version()


def _source_version() -> str:
    import re
    from pathlib import Path

    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    return found.group(1) if found else "unknown"
