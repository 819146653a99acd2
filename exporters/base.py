"""What every exporter shares: the checks before and after, the manifest and the atomic rename."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import torch

from morvit_deploy.baselines import build_forms
from morvit_deploy.bundle import MANIFEST, Dispatch, Form, Manifest, Port, Source, describe_files
from morvit_deploy.calibration.images import ImageFolder
from morvit_deploy.calibration.ranges import METHODS
from morvit_deploy.checkpoint import fingerprint, load_checkpoint
from morvit_deploy.compare import compare
from morvit_deploy.coreml import CoremlAsked, CoremlForm
from morvit_deploy.devices import versions
from morvit_deploy.ends import Options
from morvit_deploy.errors import ConfigError, ParityError, PrecisionError, StructureError
from morvit_deploy.exporters.registry import open_runner
from morvit_deploy.files import check_free, make_readable, new_folder
from morvit_deploy.lowering import lower
from morvit_deploy.model import MoRViT
from morvit_deploy.pixels import Pixels
from morvit_deploy.plan import Plan, load_plan, own_plan
from morvit_deploy.precision import PRECISIONS, Lowering, Precision
from morvit_deploy.runtime import Session
from morvit_deploy.trt import TrtAsked, TrtForm
from morvit_deploy.unroll import StaticMoRViT
from morvit_deploy.verdict import Verification

LARGEST_BATCH = 4096

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to export, and how."""

    checkpoint: Path
    out: Path
    batch: int | str = 1  # a number, or "dynamic"
    input: str = "uint8"
    with_depth: bool = False
    form: Form = "unrolled"
    plan: Path | None = None  # of `calibrate`; without, the checkpoint's own schedule
    dispatch: str | None = (
        None  # where a bucket is chosen, when the plan has several; None: as the target likes
    )
    force: bool = False
    # top-1, of the plan's model with the trained one; below fp32 also what the gate asks of decisions and classes
    min_agreement: float | None = None
    images: Pixels | None = None  # (n, height, width, 3) to verify with
    precision: Precision = "fp32"
    int8_flavor: str | None = None  # the runtime that an int8 graph is for: cpu, unless trt is asked for
    calibration: str | None = None  # how int8 ranges are chosen; None: the default of `calibration.ranges`
    smooth: bool = False  # int8: move difficulty from activations to weights
    max_drop: float | None = None  # int8: points of top-1 at which layers are lifted to float
    calibration_images: ImageFolder | None = None  # that int8 ranges and fp16 probes come from
    allow_worse: bool = False  # let a bundle through that misses its gate, or is not faster
    coreml: CoremlAsked | None = None  # for target coreml, and only there
    trt: TrtAsked | None = None  # for target trt, and only there

    def __post_init__(self) -> None:
        """ConfigError for a value that no bundle can have, before any work is done."""
        allowed_values = (
            ("input", ("uint8", "float")),
            ("form", get_args(Form)),
            ("dispatch", (None, "graph", "host")),
            ("precision", PRECISIONS),
            ("int8_flavor", (None, "cpu", "trt")),
            ("calibration", (None, *METHODS)),
        )
        for name, allowed in allowed_values:
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(filter(None, allowed))}"
                )
        if self.batch != "dynamic" and not (type(self.batch) is int and 0 < self.batch <= LARGEST_BATCH):
            raise ConfigError(f"batch: got {self.batch!r}, expected 1 to {LARGEST_BATCH} or 'dynamic'")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise ConfigError(f"min_agreement: got {self.min_agreement}, expected a share from 0 to 1")
        if self.plan is not None and self.form != "unrolled":
            raise ConfigError(
                f"form: got {self.form!r} with a plan; a baseline has the checkpoint's own schedule"
            )

        if self.coreml is not None:
            self._check_coreml()
        self._check_trt()
        self._check_precision()

    @property
    def exact(self) -> bool:
        """Are weights and arithmetic those of fp32?"""
        return self.precision == "fp32" and (self.coreml is None or self.coreml.weights == "float")

    def _check_coreml(self) -> None:
        if self.precision == "int8":
            raise ConfigError(
                "precision: got 'int8'; a Core ML package computes in fp16 or fp32 and can store int8: weights='int8'"
            )
        if self.batch != 1:
            raise ConfigError(
                f"batch: got {self.batch!r}; a Core ML package takes one image, an app feeds several in turn"
            )
        if self.form != "unrolled":
            raise ConfigError(f"form: got {self.form!r}; baselines are exported to onnx")

    def _check_trt(self) -> None:
        if self.trt is None:
            if self.precision == "bf16":
                raise ConfigError(
                    "precision: got 'bf16'; only TensorRT runs it (target 'trt'); elsewhere fp16 is as small"
                )
            return
        if self.int8_flavor == "cpu":
            raise ConfigError("int8_flavor: got 'cpu'; TensorRT takes int8 around zero only: leave it out")
        if self.trt.max_batch is not None and self.batch != "dynamic":
            raise ConfigError(
                f"max_batch: got {self.trt.max_batch} with batch {self.batch}; it is for batch 'dynamic'"
            )

    def _check_precision(self) -> None:
        if self.precision == "int8" and self.calibration_images is None:
            raise ConfigError(
                "precision: got 'int8' without images; int8 needs the range of every activation, and only images "
                "like those it will meet show it: give --images DIR"
            )
        if self.precision != "fp32" and self.form != "unrolled":
            raise ConfigError(f"form: got {self.form!r} in {self.precision}; baselines are exported in fp32")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ConfigError(f"max_drop: got {self.max_drop}, expected points of top-1 from 0 to 100")
        of_int8 = {
            "int8_flavor": self.int8_flavor is not None,
            "calibration": self.calibration is not None,
            "smooth": self.smooth,
            "max_drop": self.max_drop is not None,
        }
        given = [name for name, asked in of_int8.items() if asked]
        if given and self.precision != "int8":
            raise ConfigError(f"{', '.join(given)}: only int8 has this; precision is {self.precision!r}")
        if self.allow_worse and self.exact:
            raise ConfigError("allow_worse: fp32 has no gate that could be missed; precision is 'fp32'")


@dataclass(frozen=True)
class Written:
    """What an exporter's `write` put into the folder."""

    files: list[str]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    carried: tuple[Port, ...]
    probes: tuple[str, ...]
    lowering: Lowering | None = None  # how it came below fp32
    coreml: CoremlForm | None = None  # target coreml: the package's form
    trt: TrtForm | None = None  # target trt: what the recipe asks of the builder
    remarks: tuple[str, ...] = ()  # what the user should know, beside the manifest


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    folder: Path
    manifest: Manifest
    verification: Verification
    remarks: tuple[str, ...] = ()  # what the user should know, beside the manifest

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should be told: remarks, and what the bundle was let through with."""
        lowering = self.manifest.lowering or Lowering()
        let_through = (f"let through by --allow-worse: {missed}" for missed in lowering.accepted)
        return (*self.remarks, *lowering.facts.get("remarks", ()), *let_through)


class Exporter(ABC):
    """A target's writer: subclasses write the files of a plan's static graphs and prove their structure."""

    target: ClassVar[str]
    # what to try when a bundle below fp32 misses its gate
    remedies: ClassVar[str] = "more or better --images, --calibration, --smooth or --max-drop may help"

    dispatches: ClassVar[tuple[Dispatch, ...]] = (
        "graph",
        "host",
    )  # who can choose between buckets; first: default

    def check(self, request: Request, model: MoRViT, plan: Plan) -> None:  # noqa: B027  # most take everything
        """Refuse what this checkpoint and plan cannot become, before it is unrolled: ConfigError or TargetError."""

    def options(self, asked: Request | Manifest, *, with_depth: bool) -> Options:
        """How the static graphs are built that the files are written from, and held against."""
        return Options(input=asked.input, with_depth=with_depth, single=asked.batch == 1)

    def restore(self, graphs: dict[str, StaticMoRViT], manifest: Manifest) -> None:
        """Bring fresh static graphs to what a bundle's files were written from, in place."""
        lower(graphs, manifest.precision, manifest.lowering)

    def accompany(
        self, model: MoRViT, manifest: Manifest, request: Request, folder: Path, tell: Tell
    ) -> list[str]:
        """Write what else a user of the verified bundle needs; names of the files."""
        return []

    @abstractmethod
    def write(
        self, graphs: dict[str, StaticMoRViT], plan: Plan, request: Request, folder: Path, tell: Tell
    ) -> Written:
        """Write the files of the buckets' static graphs into `folder`; below fp32 the modules change in place."""

    @abstractmethod
    def prove(self, graphs: dict[str, StaticMoRViT], manifest: Manifest, folder: Path) -> dict[str, Any]:
        """Read the written files and hold them against the static graphs: facts, `proved`, `violations`, `macs`."""

    def export(self, request: Request, tell: Tell = lambda stage: None) -> Exported:
        """Checkpoint to bundle, verified before it gets its name.

        Raises StructureError, ParityError or PrecisionError, and writes nothing, when a check fails.
        """
        check_free(request.out, marker=MANIFEST, force=request.force)
        tell("loading the checkpoint")
        model = load_checkpoint(request.checkpoint)
        plan = own_plan(model.config)
        if request.plan is not None:
            plan = load_plan(request.plan, model.config, fingerprint(request.checkpoint))
        tell("unrolling")
        self.check(request, model, plan)
        graphs = build_forms(request.form, model, plan, self.options(request, with_depth=request.with_depth))
        with new_folder(request.out, marker=MANIFEST, force=request.force) as folder:
            tell(f"writing {self.target}")
            written = self.write(graphs, plan, request, folder, tell)
            for name in written.files:
                make_readable(folder / name)  # libraries write private files
            manifest = self._manifest(model, plan, request, written, folder)
            tell("proving the structure of the written graph")
            structure = self.prove(graphs, manifest, folder)
            if structure["violations"]:
                listed = "\n".join(f"  - {violation}" for violation in structure["violations"])
                raise StructureError(
                    f"the written graph breaks its promises, so no bundle was made:\n{listed}"
                )
            manifest = manifest.model_copy(update={"macs": structure.pop("macs"), "structure": structure})
            tell("verifying against the float64 reference")
            verification = self._verify(model, manifest, request, folder)
            manifest = manifest.model_copy(
                update={
                    "parity": verification.as_dict(),
                    "lowering": _judged(manifest, verification, request, self.remedies),
                }
            )
            beside = self.accompany(model, manifest, request, folder, tell)
            manifest = manifest.model_copy(
                update={"files": (*manifest.files, *describe_files(folder, beside))}
            )
            (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        return Exported(request.out, manifest, verification, written.remarks)

    def dispatch(self, request: Request, plan: Plan) -> Dispatch:
        """Who chooses between the buckets of a plan."""
        if not plan.adaptive:
            return "single"
        return request.dispatch or self.dispatches[0]  # type: ignore[return-value]  # Request has checked it

    def _manifest(
        self, model: MoRViT, plan: Plan, request: Request, written: Written, folder: Path
    ) -> Manifest:
        config = model.config
        return Manifest(
            format="morvit-bundle/1",
            target=self.target,
            precision=request.precision,
            lowering=written.lowering,
            coreml=written.coreml,
            trt=written.trt,
            form=request.form,
            dispatch=self.dispatch(request, plan),
            batch=request.batch,  # type: ignore[arg-type]  # Request has checked the values
            input=request.input,  # type: ignore[arg-type]  # the same
            config=config,
            plan=plan,
            preprocess=config.preprocess,
            labels=config.labels,
            checkpoint=Source(
                sha256=fingerprint(request.checkpoint), parameters=sum(p.numel() for p in model.parameters())
            ),
            files=describe_files(folder, written.files),
            inputs=written.inputs,
            outputs=written.outputs,
            carried=written.carried,
            probes=written.probes,
            macs={},
            structure={},
            parity=None,
            versions=versions(),
        )

    def _verify(self, model: MoRViT, manifest: Manifest, request: Request, folder: Path) -> Verification:
        def open_session(bucket: str | None = None, probes: bool = False) -> Session:
            return Session(folder, manifest, open_runner(folder, manifest, probes=probes, bucket=bucket))

        verification = compare(model, manifest, open_session, request.images, manifest.structure)
        verification = replace(
            verification,
            min_agreement=request.min_agreement or 0.0,
            gate=manifest.gate(request.min_agreement),
        )
        if not (verification.passed or verification.only_gate_missed):
            raise ParityError(f"no bundle was made, because {verification.failure}")
        return verification


def _judged(
    manifest: Manifest, verification: Verification, request: Request, remedies: str
) -> Lowering | None:
    """The record of a bundle below fp32 with what it was let through with; PrecisionError when it was not to be."""
    lowering = manifest.lowering
    if lowering is None:
        return None
    missed = list(verification.missed)
    ratio = lowering.facts.get("speed_ratio")
    if ratio is not None and ratio >= 1:
        missed.append(f"{manifest.precision} takes {ratio:.2f} times as long as fp32 on this machine")
    if missed and not request.allow_worse:
        listed = "\n".join(f"  - {line}" for line in missed)
        raise PrecisionError(
            f"no bundle was made, because it is not worth having; {remedies}, --allow-worse lets it through:\n"
            + listed
        )
    return lowering.model_copy(update={"accepted": tuple(missed)})


def example_image(graph: StaticMoRViT, batch: int) -> torch.Tensor:
    """An input of the graph's own kind, to trace with."""
    size = graph.config.image_size
    if graph.options.input == "uint8":
        return torch.from_numpy(np.zeros((batch, size, size, 3), dtype=np.uint8))
    return torch.zeros(batch, 3, size, size)
