"""What a file of several functions requires of a request and of a manifest. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.functions.names import MAIN, STEM

if TYPE_CHECKING:
    from morvit_deploy.bundle.manifest import Manifest
    from morvit_deploy.exporters.request import Request
    from morvit_deploy.model.plan import Plan


def functions_of(plan: Plan) -> tuple[str, ...]:
    """The functions of a plan's file, in order."""
    return (STEM, *(bucket.name for bucket in plan.buckets)) if plan.adaptive else (MAIN,)


def function_problems(functions: Sequence[str], manifest: Manifest) -> list[str]:
    """What contradicts the plan in a manifest's list of functions."""
    expected = functions_of(manifest.plan)
    if tuple(functions) == expected:
        return []
    return [f"functions: {list(functions)}, the plan has {list(expected)}"]


def check_functions(request: Request, file: str, chooser: str) -> None:
    """ConfigError for a request that functions do not support; `file` is as "a Core ML package"."""
    if request.dispatch == "graph":
        raise ConfigError(
            f"dispatch: got 'graph'; in {file} each bucket is a function, and {chooser} chooses it: use 'host'"
        )
    if request.batch != 1:
        raise ConfigError(f"batch: got {request.batch!r}; {file} takes one image at a time; use batch 1")
    if request.form != "unrolled":
        raise ConfigError(f"form: got {request.form!r}; baselines are exported to target onnx only")
