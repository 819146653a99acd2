"""Options of target `onnx`. No torch, no onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help, TargetOptions

if TYPE_CHECKING:
    from morvit_deploy.exporters.request import Request


@dataclass(frozen=True)
class OnnxOptions(TargetOptions):
    """Options of target `onnx`."""

    fast_tail: Annotated[
        bool,
        Help(
            "fp32: products of few tokens, as in late steps, read an 8-bit copy of their weights, which is faster "
            "where reading weights takes the time. int8's gate applies; no images are needed."
        ),
    ] = False

    @property
    def exact(self) -> bool:
        return not self.fast_tail

    @property
    def any_output(self) -> bool:
        return not self.fast_tail

    @property
    def remedy(self) -> str:
        return "an export without --fast-tail keeps every decision" if self.fast_tail else ""

    def check(self, request: Request) -> None:
        if not self.fast_tail:
            return
        if request.precision != "fp32":
            raise ConfigError(
                f"fast_tail: only fp32 has this; precision is {request.precision!r}; leave one of the two out"
            )
        if request.form != "unrolled":
            raise ConfigError(f"fast_tail: got form {request.form!r}; baselines are exported without it")
        if request.batch == "dynamic":
            raise ConfigError(
                "fast_tail: got batch 'dynamic', where no product is known to have few rows; give a number"
            )


class OnnxKeywords(TypedDict, total=False):
    """The same as keywords of `export`."""

    fast_tail: bool
