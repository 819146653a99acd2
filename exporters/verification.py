"""Verifies a bundle against its checkpoint: structure of the files, and results of a runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.links import open_linked
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.session import Session
from morvit_deploy.errors import BundleError, ConfigError
from morvit_deploy.exporters.targets import find_target, open_runner
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.style.styles import Options
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.machine.extras import names_extra
from morvit_deploy.model.checkpoint import fingerprint, load_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.merges.schedules import schedule_of
from morvit_deploy.model.merges.tokens import with_schedule
from morvit_deploy.model.plan import own_plan, recounted
from morvit_deploy.sources.outputs.comparison import compare_with_source, recorded_gap
from morvit_deploy.sources.outputs.gap import described
from morvit_deploy.verifying.comparison import compare
from morvit_deploy.verifying.outcome import Verification

if TYPE_CHECKING:
    from morvit_deploy.exporters.base import Exporter
    from morvit_deploy.model.reference import MoRViT

DEFAULT_LIMIT = 64  # images; the float64 reference runs them one by one


@names_extra("verify")
@checks_keywords()
def verify(
    bundle: str | Path,
    checkpoint: str | Path,
    *,
    images: str | Path | None = None,
    limit: int | None = DEFAULT_LIMIT,
    threads: int | None = None,
    upscale: bool = False,
    exif: bool = False,
    min_agreement: float | None = None,
    reference: str | Path | None = None,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Verification:
    """Verify a bundle against a checkpoint folder, on the pictures of a folder or on synthetic ones.

    The structure is read from the files again. Raises BundleError when the bundle is damaged or was made from a
    checkpoint of another architecture; failed checks are in the result, not raised. `min_agreement` is the required
    top-1 agreement of a plan's model with the trained one (None: reported only); below fp32 it replaces the
    precision's gate. `reference` is an `.npz` file with the source's own outputs, as for
    `convert`. `tell` is called with each stage, `progress` with the share of images done.

    >>> verification = md.verify("build/onnx", "checkpoint", images="photos")
    >>> assert verification.passed, verification.failure
    """
    if min_agreement is not None and not 0 <= min_agreement <= 1:
        raise ConfigError(f"min_agreement: got {min_agreement}, expected a share from 0 to 1")
    tell("loading the checkpoint")
    model = load_checkpoint(checkpoint)
    folder, manifest = open_linked(bundle)
    model = _merged_alike(model, manifest.config)
    differing = _differences(manifest.config, model.config)
    if differing:
        listed = "\n".join(f"  - {line}" for line in differing)
        raise BundleError(
            f"{bundle} was made from another model than {checkpoint}; config.json differs:\n{listed}"
        )
    source = None
    if reference is not None:
        tell("comparing with the source's own outputs")
        source = compare_with_source(model, reference)
    tell("proving the structure of the written graph")
    exporter = find_target(manifest.target).load_exporter()
    graphs = build_graphs(manifest.form, model, manifest.plan, options_of(exporter, manifest))
    try:
        exporter.restore(graphs, manifest)
    except ConfigError as error:
        raise BundleError(f"{bundle}: {error}; the manifest was edited") from None
    structure = exporter.prove(graphs, manifest, folder)
    if manifest.form != "unrolled" and recounted(manifest.plan, model.config) != own_plan(model.config):
        raise BundleError(f"{bundle}: the manifest's plan is not the one exported; it was edited")
    macs = structure.pop("macs") or manifest.macs  # none: the proof ended before it could count
    recorded = (manifest.macs, manifest.checkpoint.parameters)
    found = (macs, sum(p.numel() for p in model.parameters()))
    if recorded != found:
        raise BundleError(
            f"{bundle}: the manifest says {recorded} MACs and parameters, found {found}; it was edited"
        )
    pixels = None
    if images is not None:
        pixels = open_images(images, model.config, limit=limit, upscale=upscale, exif=exif).all()
    tell("comparing images with the float64 reference")

    def open_session(bucket: str | None = None, probes: bool = False) -> Session:
        runner = open_runner(folder, manifest, threads=threads, probes=probes, bucket=bucket)
        return Session(folder, manifest, runner)

    try:
        verification = compare(model, manifest, open_session, pixels, structure, tell=tell, progress=progress)
    except (IndexError, KeyError, ValueError) as error:  # results that contradict the manifest
        if structure["proved"]:
            raise
        raise BundleError(f"{bundle}: {structure['violations'][0]}; it was edited") from error
    same = manifest.checkpoint.sha256 == fingerprint(checkpoint)
    return replace(
        verification,
        source=source,
        reading=described(source, recorded_gap(model)),
        same_checkpoint=same,
        min_agreement=min_agreement or 0.0,
        gate=manifest.gate(min_agreement),
    )


def _merged_alike(model: MoRViT, bundled: Config) -> MoRViT:
    """The model, with the bundle's merges if export made them of a plain ViT."""
    if not bundled.record.merges or model.config.record.routes:
        return model
    try:
        return with_schedule(model, schedule_of(bundled))
    except ConfigError:  # another model, whose differences are listed
        return model


def _differences(bundled: Config, own: Config) -> list[str]:
    """Fields that differ, apart from the provenance, which does not affect results."""
    a, b = (config.model_dump(mode="json", exclude={"provenance"}) for config in (bundled, own))
    return [
        f"{field}: the bundle has {a.get(field)!r}, the checkpoint {b.get(field)!r}"
        for field in a | b
        if a.get(field) != b.get(field)
    ]


def options_of(exporter: Exporter, manifest: Manifest) -> Options:
    """The options of the static graphs that a bundle was written from."""
    options = exporter.options(manifest, with_depth=any(port.name == "depth" for port in manifest.outputs))
    return replace(options, unformed_keys=manifest.unformed_keys, output=manifest.output)
