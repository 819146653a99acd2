"""The base of exporters: checks before and after writing, the manifest, and the atomic rename."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from morvit_deploy.bundle.formats import FORMAT
from morvit_deploy.bundle.forms import TargetForm
from morvit_deploy.bundle.manifest import MANIFEST, Manifest, Port, Source, describe_files
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.bundle.session import Session
from morvit_deploy.errors import ConfigError, ParityError, PrecisionError, StructureError, listed
from morvit_deploy.exporters.request import Request
from morvit_deploy.exporters.targets import bundle_files, find_target, open_runner
from morvit_deploy.files import Place, check_free, check_outside, check_utf8, make_readable, new_folder
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.lowering import lower
from morvit_deploy.graph.style.styles import Options, style_for_batch
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.machine.this import LIBRARIES, versions
from morvit_deploy.model.answers.accuracy import Kept, ruin_of
from morvit_deploy.model.checkpoint import check_unchanged, load_with_fingerprint
from morvit_deploy.model.choices import PRECISIONS, Dispatch
from morvit_deploy.model.config import Config
from morvit_deploy.model.merges.tokens import merge_tokens
from morvit_deploy.model.plan import Plan, own_plan, read_plan
from morvit_deploy.model.precision import Lowering
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.report import Report, Shown
from morvit_deploy.sources.outputs.comparison import check_source, recorded_gap
from morvit_deploy.sources.outputs.gap import described
from morvit_deploy.verifying.comparison import compare
from morvit_deploy.verifying.outcome import Verification

Tell = Callable[[str], None]
Progress = Callable[[float], None]
CALIBRATE = "Run `morvit-deploy calibrate` for another plan"
YOUNG = 50_000  # new objects before the garbage collector looks for cycles among them


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Collect garbage less often: a trace makes millions of objects that live on; collecting takes a fifth of it."""
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(frozen=True)
class Written:
    """Result of an exporter's `write`."""

    files: list[str]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    carried: tuple[Port, ...] = ()  # passed from a stem to a trunk
    probes: tuple[str, ...] = ()  # values inside that `verify` can compare
    lowering: Lowering | None = None  # how it came below fp32
    form: TargetForm = field(default_factory=TargetForm)  # the target's own entry of the manifest
    remarks: tuple[str, ...] = ()  # what the user should know, beside the manifest


@dataclass(frozen=True)
class Exported(Shown):
    """A finished export."""

    folder: Path
    manifest: Manifest
    verification: Verification
    remarks: tuple[str, ...] = ()  # what the user should know, beside the manifest

    def __repr__(self) -> str:
        return f"Exported({str(self.folder)!r}, {self.manifest.described}, {self.verification!r})"

    def report(self) -> Report:
        """Files, buckets, precision, and what was verified."""
        from morvit_deploy.exporters.views import export_report

        return export_report(self.folder, self.manifest, self.verification)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Remarks for the user, and gates that --allow-worse ignored."""
        lowering = self.manifest.lowering or Lowering()
        let_through = (f"let through by --allow-worse: {missed}" for missed in lowering.accepted)
        return (*self.remarks, *lowering.facts.get("remarks", ()), *let_through)


INT8_REMEDIES = "more or better --images, --calibration, --smooth or --max-drop may help"


class Exporter(ABC):
    """Base class of a target's writer: subclasses write a plan's static graphs and prove their structure."""

    remedies: ClassVar[str] = ""  # what to try when a bundle below fp32 misses its gate; "": by precision

    def __init__(self) -> None:
        self.progress: Progress = lambda share: None  # called with the share of a stage that is done

    def check(self, request: Request, model: MoRViT, plan: Plan) -> None:  # noqa: B027  # most accept everything
        """Raise ConfigError or TargetError for a checkpoint and plan that the target does not support."""

    def options(self, source: Request | Manifest, *, with_depth: bool) -> Options:
        """Options of the static graphs that the files are written from and checked against."""
        return Options(source.input, with_depth, style_for_batch(source.batch))

    def restore(self, graphs: dict[str, StaticMoRViT], manifest: Manifest) -> None:
        """Lower fresh static graphs in place as for a bundle's files."""
        lower(graphs, manifest.precision, manifest.lowering)

    def accompany(
        self, model: MoRViT, manifest: Manifest, request: Request, folder: Path, tell: Tell
    ) -> list[str]:
        """Write further files for users of the verified bundle; returns their names."""
        return []

    @abstractmethod
    def write(
        self, graphs: dict[str, StaticMoRViT], plan: Plan, request: Request, folder: Path, tell: Tell
    ) -> Written:
        """Write the files of the buckets' static graphs into `folder`; below fp32 the modules change in place."""

    @abstractmethod
    def prove(self, graphs: dict[str, StaticMoRViT], manifest: Manifest, folder: Path) -> dict[str, Any]:
        """Check the written files against the static graphs; returns at least a `Structure` as a dict."""

    @seldom_collected()
    def export(self, request: Request, tell: Tell = lambda stage: None) -> Exported:
        """Export a checkpoint to a bundle, which is verified before it gets its name.

        Raises StructureError, ParityError, PrecisionError or AccuracyError, and writes nothing, when a check fails.
        """
        pictures = request.pictures  # errors in them are reported before any work is done
        check_outside(request.out, request.images)
        place: Place = {
            "marker": MANIFEST,
            "lists": bundle_files,
            "force": request.force,
            "inputs": request.inputs,
        }
        check_utf8(request.out)
        check_free(request.out, **place)
        tell("loading the checkpoint")
        model, sha256 = load_with_fingerprint(request.checkpoint)
        model = _merged(model, request)
        _check_tokens(model, request)
        source, before = None, recorded_gap(model)
        if request.reference is not None:
            tell("comparing with the source's own outputs")
            source = check_source(model, request.reference, "no bundle was written")
        plan = own_plan(model.config)
        if request.plan is not None:
            plan = read_plan(request.plan, model.config, sha256)
        recorded = Kept.recorded(plan.calibration)
        let_through = ruin_of(recorded, allow_worse=request.allow_worse, remedy=CALIBRATE)
        tell("unrolling")
        self.check(request, model, plan)
        options = replace(self.options(request, with_depth=request.with_depth), output=request.output)
        graphs = build_graphs(request.form, model, plan, options)
        with new_folder(request.out, **place) as folder:
            tell(f"writing {request.target}")
            written = self.write(graphs, plan, request, folder, tell)
            for name in written.files:
                make_readable(folder / name)  # libraries write private files
            manifest = self._manifest(model, sha256, plan, request, written, folder)
            tell("proving the structure of the written graph")
            structure = self.prove(graphs, manifest, folder)
            if structure["violations"]:
                raise StructureError(
                    "no bundle was written: the graph is not the checkpoint's static graph:\n"
                    + listed(structure["violations"])
                )
            manifest = manifest.model_copy(update={"macs": structure.pop("macs"), "structure": structure})
            tell("verifying against the float64 reference")
            verification = self._verify(model, manifest, request, pictures.verifying, folder, tell)
            reading = described(source, before)
            verification = replace(verification, source=source, reading=reading)
            let_through = let_through or _ruin_found(verification, recorded, request)
            manifest = manifest.model_copy(
                update={
                    "parity": verification.as_dict(),
                    "reference": source or before,
                    "lowering": _lowering_of(manifest, verification, request, self._remedies(request)),
                }
            )
            beside = self.accompany(model, manifest, request, folder, tell)
            manifest = manifest.model_copy(
                update={"files": (*manifest.files, *describe_files(folder, beside))}
            )
            (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            check_unchanged(request.checkpoint, sha256)
        needs = find_target(request.target).needs
        remarks = (*needs.untested(needs.export), *written.remarks, *let_through)
        return Exported(request.out, manifest, verification, remarks)

    def _remedies(self, request: Request) -> str:
        record = PRECISIONS[request.precision]
        general = INT8_REMEDIES if record.ranges else "--precision fp32, or more --images, may help"
        return request.options.remedy or record.remedy or self.remedies or general

    def dispatch(self, request: Request, plan: Plan) -> Dispatch:
        """Where the bucket is chosen: single, graph or host."""
        if not plan.adaptive:
            return "single"
        return request.dispatch or find_target(request.target).dispatches[0]

    def _manifest(
        self, model: MoRViT, sha256: str, plan: Plan, request: Request, written: Written, folder: Path
    ) -> Manifest:
        config = model.config
        return Manifest(
            format=FORMAT,
            target=request.target,
            target_form=written.form,
            precision=request.precision,
            lowering=written.lowering,
            form=request.form,
            dispatch=self.dispatch(request, plan),
            batch=request.batch,
            input=request.input,
            unformed_keys=True,
            output=request.output,
            config=config,
            plan=plan,
            preprocess=config.preprocess,
            labels=config.labels,
            checkpoint=Source(sha256=sha256, parameters=sum(p.numel() for p in model.parameters())),
            files=describe_files(folder, written.files),
            inputs=written.inputs,
            outputs=written.outputs,
            carried=written.carried,
            probes=written.probes,
            macs={},
            structure={},
            parity=None,
            versions=versions((*LIBRARIES, *find_target(request.target).needs.export)),
        )

    def _verify(
        self,
        model: MoRViT,
        manifest: Manifest,
        request: Request,
        pixels: Pixels | None,
        folder: Path,
        tell: Tell,
    ) -> Verification:
        def open_session(bucket: str | None = None, probes: bool = False) -> Session:
            return Session(folder, manifest, open_runner(folder, manifest, probes=probes, bucket=bucket))

        verification = compare(
            model, manifest, open_session, pixels, manifest.structure, tell=tell, progress=self.progress
        )
        verification = replace(
            verification,
            min_agreement=request.min_agreement or 0.0,
            gate=manifest.gate(request.min_agreement),
        )
        if not (verification.passed or verification.only_gate_missed):
            raise ParityError(f"no bundle was written: {verification.failure}")
        return verification


def _check_tokens(model: MoRViT, request: Request) -> None:
    """Raise ConfigError where all patch tokens are wanted, and some of them end before the last layer."""
    if request.output == "tokens" and model.config.record.reduces:
        raise ConfigError(
            f"output: got 'tokens' with routing {model.config.routing!r}, whose last layers hold fewer tokens than "
            "the image has patches; expected 'logits' or 'features'"
        )


def _merged(model: MoRViT, request: Request) -> MoRViT:
    """The model as loaded, or a plain ViT whose tokens merge as requested."""
    if not request.merges:
        return model
    return merge_tokens(
        model,
        request.merge,
        merge_to=request.merge_to,
        proportional_attention=request.proportional_attention,
    )


def _ruin_found(verification: Verification, recorded: Kept | None, request: Request) -> list[str]:
    """What --allow-worse let through of the agreement on the user's images; AccuracyError for ruin without it.

    An agreement as low as calibration recorded it is no ruin: with labels, top-1 has decided.
    """
    agreement = verification.routing_gap.top1_agreement
    if verification.synthetic or (recorded is not None and agreement >= recorded.agreement):
        return []
    expected = 1.0 if recorded is None else recorded.agreement
    kept = Kept(verification.images, agreement, expected=expected)
    return ruin_of(kept, allow_worse=request.allow_worse, remedy=CALIBRATE)


def _lowering_of(
    manifest: Manifest, verification: Verification, request: Request, remedies: str
) -> Lowering | None:
    """The record of a bundle below fp32, with the gates that it misses; PrecisionError unless they are allowed."""
    lowering = manifest.lowering
    if lowering is None:
        return None
    missed = list(verification.missed)
    ratio = lowering.facts.get("speed_ratio")
    if ratio is not None and ratio >= 1:
        what = manifest.target_form.said or manifest.precision
        missed.append(f"{what} takes {ratio:.2f} times as long as fp32 on this machine")
    if missed and not request.allow_worse:
        raise PrecisionError(
            f"no bundle was written: it misses its gate; {remedies}, --allow-worse keeps it:\n{listed(missed)}"
        )
    return lowering.model_copy(update={"accepted": tuple(missed)})


def plain_ports(config: Config, request: Request) -> tuple[tuple[Port], tuple[Port]]:
    """Inputs and outputs of a graph that takes the image as requested and returns logits."""
    shape, batch = config.image_shape, "batch" if request.batch == "dynamic" else request.batch
    pixels = request.input == "uint8"
    image = Port(
        name="image",
        dtype="uint8" if pixels else "float32",
        shape=(batch, *shape, config.in_channels) if pixels else (batch, config.in_channels, *shape),
    )
    return (image,), (Port(name="logits", dtype="float32", shape=(batch, config.num_classes)),)


def example_image(graph: StaticMoRViT, batch: int) -> torch.Tensor:
    """An example input of the graph, for tracing."""
    return graph.stem.example(batch)
