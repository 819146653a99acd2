"""The runtimes that the exported graphs are tried in, each at a pinned version."""

from __future__ import annotations

from dataclasses import dataclass

from morvit_deploy.agent.core.releases import is_older

ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-node", "onnxruntime-web")  # with one numbering
NODE = "node"  # a group of columns: what needs node and npm


@dataclass(frozen=True)
class Runtime:
    """A column of the table: a package at a version, and what is installed beside it."""

    package: str
    version: str
    pythons: tuple[int, int] | None = None  # first and last 3.x with a wheel; None: a package of npm
    beside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As on a command line of pip: `onnxruntime==1.16.3`."""
        return f"{self.package}=={self.version}"

    @property
    def folder(self) -> str:
        """The name of its environment's folder."""
        return f"{self.package}-{self.version}"

    @property
    def groups(self) -> tuple[str, ...]:
        """What `--without` may call it."""
        return (self.package, self.name) if self.pythons else (self.package, self.name, NODE)

    def is_older_than(self, release: str | None) -> bool:
        """Whether it is an ONNX Runtime, in any package, from before `release`, such as `1.23`."""
        return release is not None and self.package in ONNX_RUNTIMES and is_older(self.version, release)

    @property
    def pins(self) -> tuple[str, ...]:
        """What the package manager is asked for."""
        return (self.name, *self.beside) if self.pythons else (f"{self.package}@{self.version}",)


_OLD_NUMPY, _NUMPY = ("numpy==1.26.4",), ("numpy==2.2.6",)
OLDEST = Runtime("onnxruntime", "1.16.3", (10, 11), _OLD_NUMPY)
RUNTIMES = (
    OLDEST,
    Runtime("onnxruntime", "1.17.3", (10, 12), _OLD_NUMPY),
    Runtime("onnxruntime", "1.18.1", (10, 12), _OLD_NUMPY),
    Runtime("onnxruntime", "1.19.2", (10, 12), _NUMPY),
    Runtime("onnxruntime", "1.23.2", (10, 13), _NUMPY),
    Runtime("onnxruntime", "1.32.0", (11, 13), _NUMPY),
    Runtime("onnxruntime-node", "1.20.1"),
    Runtime("onnxruntime-node", "1.30.0"),
    Runtime("onnxruntime-web", "1.20.1"),
    Runtime("onnxruntime-web", "1.30.0"),
    Runtime("openvino", "2026.4.1", (10, 13), (*_NUMPY, "openvino-telemetry", "packaging")),
)


def chosen(only: list[str], without: list[str]) -> tuple[Runtime, ...]:
    """Return the runtimes that `--only` and `--without` leave; ValueError for a name that is none of them."""
    known = {group for runtime in RUNTIMES for group in runtime.groups}
    if unknown := sorted({*only, *without} - known):
        raise ValueError(f"got the runtime {unknown[0]!r}, expected one of: {', '.join(sorted(known))}")
    return tuple(
        runtime
        for runtime in RUNTIMES
        if (not only or {*only} & {*runtime.groups}) and not {*without} & {*runtime.groups}
    )
