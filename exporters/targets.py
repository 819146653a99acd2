"""The registry of targets, and what the rest of the program knows of a target.

A target is a folder of `exporters/` whose `target.py` defines one object, `TARGET`. Its modules are imported on use:
running a bundle needs no torch, and `--help` neither numpy nor pydantic.
"""

from __future__ import annotations

import os
import pkgutil
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import morvit_deploy.exporters
from morvit_deploy.agent.core.releases import not_importable
from morvit_deploy.bundle.known import find_with
from morvit_deploy.errors import MorvitWarning, TargetError
from morvit_deploy.exporters.options import TargetOptions
from morvit_deploy.files import own_list
from morvit_deploy.keywords import checks_keywords, did_you_mean
from morvit_deploy.machine.dependencies import installed, within
from morvit_deploy.machine.extras import names_extra, require
from morvit_deploy.model.answers.gates import GATES, Gate
from morvit_deploy.model.choices import PRECISIONS, Dispatch, Int8Flavor, Output, Precision

if TYPE_CHECKING:
    from morvit_deploy.agent.core.running import Runner
    from morvit_deploy.bundle.forms import TargetForm
    from morvit_deploy.bundle.manifest import Manifest
    from morvit_deploy.bundle.session import Session
    from morvit_deploy.exporters.base import Exporter
    from morvit_deploy.exporters.board import BoardFiles

DEFAULT = "onnx"  # the first in every list
COMPARE = "compare it with its checkpoint (`morvit-deploy verify`)"
REGISTERED = "MORVIT_TARGETS"  # environment variable: targets of other packages, `module:name` with commas


@dataclass(frozen=True)
class Needs:
    """Distributions that a target needs, by what is done with it, and the extra that installs all of them."""

    export: tuple[str, ...]  # includes running, which verifies the bundle
    run: tuple[str, ...] = ("numpy", "pillow", "pydantic")
    extra: str = "export"
    tested: Mapping[str, str] = field(default_factory=dict)  # version ranges that bundles were checked with

    def untested(
        self, used: Collection[str], written_with: Mapping[str, str] | None = None
    ) -> tuple[str, ...]:
        """A sentence for each of the `used` distributions of another version, with both versions.

        `written_with` are the versions in a bundle's manifest; None where one is being written.
        """
        known = {name: ranges for name, ranges in self.tested.items() if name in used}
        found = (_untested(name, ranges, written_with) for name, ranges in known.items())
        return tuple(sentence for sentence in found if sentence)


@dataclass(frozen=True)
class Target:
    """All that the program knows of a target. Places are `module:name`, imported on use."""

    name: str
    runs_on: str  # runtime and device, in words
    needs: Needs
    exporter: str  # place of its Exporter
    runner: str  # place of `open(folder, manifest, threads, probes, bucket) -> Runner`
    # place of `profiled(folder, manifest, threads, bucket)`, for `bench --profile`: a plain graph, and its options
    profiled: str | None = None
    # place of `required(folder, manifest) -> dict`: library to the oldest release that runs the bundle
    required: str | None = None
    board_files: str | None = None  # place of `board_files(bundle, manifest) -> BoardFiles`, if boards run it
    devices: tuple[str, ...] = ()  # names of `bench --device` that can measure it
    options: type[TargetOptions] = TargetOptions
    # from the importable distributions, and whether there is an NVIDIA GPU: what runs its bundles here; "": nothing
    runs_here: Callable[[Collection[str], bool], str] = lambda have, gpu: "its own runtime"
    form: str = "morvit_deploy.bundle.forms:TargetForm"  # place of the class of its manifest entry
    precision: Precision = "fp32"  # unless another is asked for
    precisions: tuple[Precision, ...] = ("fp32",)
    # unsupported precisions, with what to do instead
    why_not: Mapping[str, str] = field(default_factory=dict)
    gates: Mapping[str, Gate] = field(default_factory=lambda: GATES)  # below fp32, by precision
    dispatches: tuple[Dispatch, ...] = ("graph", "host")  # who can choose between buckets; first: default
    outputs: tuple[Output, ...] = ("logits",)  # what its graphs may return
    calibrates: bool = False  # are the user's images used for ranges or overflows below fp32?
    int8_flavor: Int8Flavor = "cpu"  # unless another is asked for
    integers: tuple[str, str] = ("uint8", "bool")  # dtypes of the outputs `depth` and `overflow`
    names_runtime: bool = False  # does `predict` print the runtime?
    limits: Mapping[str, int] = field(default_factory=dict)  # limits of its runtime, by name
    # files made in a bundle after its export; * stands for the stem of each file of the bundle
    made_later: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()  # what others call it, for "did you mean"

    def why_not_in(self, precision: str) -> str:
        """Why the target does not support a precision, and what to do instead."""
        listed = f"target {self.name} has {', '.join(self.precisions)}"
        elsewhere = PRECISIONS[precision].elsewhere if precision in PRECISIONS else ""
        return self.why_not.get(precision) or (f"{listed}; {elsewhere}" if elsewhere else listed)

    def load_form(self) -> type[TargetForm]:
        """The class of its manifest entry."""
        form: type[TargetForm] = _load(self.form)
        return form

    def untested_here(self, written_with: Mapping[str, str]) -> tuple[str, ...]:
        """As `Needs.untested`, of what runs a bundle; `written_with` are the versions in its manifest."""
        return self.needs.untested(self.needs.run, written_with)

    def check_export(self) -> None:
        """MissingExtraError where something is not installed that exporting requires."""
        require(self.needs.export, f"target {self.name}", self.needs.extra)

    def load_exporter(self) -> Exporter:
        """The exporter, ready to use; imports torch."""
        self.check_export()
        exporter: Exporter = _load(self.exporter)()
        return exporter

    def load_runner(self) -> Callable[..., Runner]:
        """`open(folder, manifest, threads, probes, bucket) -> Runner`."""
        require(self.needs.run, f"running a bundle of target {self.name}", self.needs.extra)
        try:
            runner: Callable[..., Runner] = _load(self.runner)
        except ModuleNotFoundError:
            raise
        except ImportError as error:  # it is there and broken
            library = (error.name or self.needs.run[0]).partition(".")[0]
            raise TargetError(
                f"{not_importable(library, error)}; `morvit-deploy doctor` lists what works here"
            ) from error
        return runner

    def load_profiled(self) -> Callable[..., tuple[Any, Callable[[], Any]]]:
        """`profiled(folder, manifest, threads, bucket)`; TargetError where ONNX Runtime does not run the target."""
        if self.profiled is None:
            able = ", ".join(target.name for target in targets().values() if target.profiled)
            raise TargetError(
                f"target {self.name} has no profile by ONNX Runtime; targets that have one: {able}"
            )
        found: Callable[..., tuple[Any, Callable[[], Any]]] = _load(self.profiled)
        return found

    def required_by(self, folder: Path, manifest: Manifest) -> dict[str, str]:
        """Library to the oldest release that runs a bundle; empty where nothing is known of it."""
        return dict(_load(self.required)(folder, manifest)) if self.required else {}

    def load_board_files(self) -> Callable[[Path, Manifest], BoardFiles]:
        """The function that lists a board's files; TargetError when no board runs this target."""
        if self.board_files is None:
            able = ", ".join(target.name for target in targets().values() if target.board_files)
            raise TargetError(f"target {self.name} runs on no board; what can be sent to one: {able}")
        files: Callable[[Path, Manifest], BoardFiles] = _load(self.board_files)
        return files


def targets() -> dict[str, Target]:
    """Every target by its name: the folders of `exporters/`, then those that `register` added."""
    places = [place for place in os.environ.get(REGISTERED, "").split(",") if place]
    return _own_targets() | {target.name: target for target in map(_load, places)}


def register(place: str) -> Target:
    """Add the target at `module:name`, here and in child processes, in which `bench` measures."""
    target: Target = _load(place)
    places = [known for known in os.environ.get(REGISTERED, "").split(",") if known not in ("", place)]
    os.environ[REGISTERED] = ",".join([*places, place])
    return target


@cache
def _own_targets() -> dict[str, Target]:
    folders = [
        module.name
        for module in pkgutil.iter_modules(morvit_deploy.exporters.__path__)
        if module.ispkg and find_spec(f"morvit_deploy.exporters.{module.name}.target")  # others are shared
    ]
    found: list[Target] = [_load(f"morvit_deploy.exporters.{name}.target:TARGET") for name in folders]
    return {target.name: target for target in sorted(found, key=lambda target: target.name != DEFAULT)}


def find_target(name: str) -> Target:
    """The target called `name`; TargetError lists what there is."""
    known = targets()
    if name not in known:
        words = {word: target.name for target in known.values() for word in target.synonyms}
        hint = did_you_mean(name, known, words)
        raise TargetError(f"got target {name!r}; this version exports to: {', '.join(known)}{hint}")
    return known[name]


find_with(find_target)  # to read manifests with the form of their target


@checks_keywords()
def open_bundle(
    folder: str | Path, *, threads: int | None = None, probes: bool = False, bucket: str | None = None
) -> Session:
    """Check a bundle and load its graphs, without torch.

    `threads` is the number of compute threads (default: all cores this process may use). With `bucket` every image
    runs in that bucket. With `probes` the graph of that bucket (or of the only one) also returns the values inside
    that `verify` compares. Raises BundleError, PlanError or TargetError, also for a runtime that is too old. Issues a
    MorvitWarning for each of the session's `warnings`.

    >>> with md.open_bundle("build/onnx", threads=4) as session:
    ...     logits = session.logits(pixels)
    """
    session = open_session(folder, threads=threads, probes=probes, bucket=bucket)
    issue_warnings(session, decorators=1)
    return session


@names_extra("open_bundle")
def open_session(
    folder: str | Path, *, threads: int | None = None, probes: bool = False, bucket: str | None = None
) -> Session:
    """As `open_bundle`, for callers that report the session's `warnings` themselves."""
    from morvit_deploy.bundle.links import open_linked
    from morvit_deploy.bundle.session import Session

    folder, manifest = open_linked(folder)
    return Session(
        folder, manifest, open_runner(folder, manifest, threads=threads, probes=probes, bucket=bucket)
    )


def issue_warnings(session: Session, decorators: int) -> None:
    """Issue a session's `warnings`, at the line that called the function calling this, which has these decorators."""
    for text in session.warnings:
        warnings.warn(text, MorvitWarning, stacklevel=3 + decorators)


def bundle_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Names of a bundle's files: those that its manifest lists, and those that its target makes in it later."""
    names = list(own_list(folder, manifest))
    target = targets().get(str(manifest.get("target")))
    later = target.made_later if target else ()
    stems = {PurePosixPath(name).stem for name in names}
    return [*names, *(pattern.replace("*", stem) for pattern in later for stem in stems)]


def open_runner(
    folder: Path,
    manifest: Manifest,
    *,
    threads: int | None = None,
    probes: bool = False,
    bucket: str | None = None,
) -> Runner:
    """Load the graphs of a bundle whose files have been checked."""
    if bucket is not None:
        manifest.plan.bucket(bucket)  # PlanError for a name that it does not have
    return find_target(manifest.target).load_runner()(folder, manifest, threads, probes, bucket)


def _untested(name: str, ranges: str, written_with: Mapping[str, str] | None) -> str:
    """A sentence if a library is here, or wrote a bundle, in a version outside `ranges`; else an empty one."""
    here, there = installed(name), (written_with or {}).get(name)
    if here and not within(here, ranges):
        written = f"the bundle was written with {there or 'an unknown version'}; {COMPARE}"
        advice = "test the bundle on a device before you ship it" if written_with is None else written
        return f"{name} {here} is outside the tested range ({ranges}); {advice}"
    if there and not within(there, ranges):
        now = f"{here} is installed" if here else "it is not installed"
        return f"the bundle was written with {name} {there}, outside the tested range ({ranges}); {now}; {COMPARE}"
    return ""


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
