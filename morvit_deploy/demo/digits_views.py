"""Tables and pictures of the digits models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from morvit_deploy.demo.digits import ModelRun, Packaged
from morvit_deploy.machine.extras import install_line
from morvit_deploy.model.macs import dense_macs
from morvit_deploy.planning.front import front_table
from morvit_deploy.report import Picture, Table, count, share, size
from morvit_deploy.verifying.views import parity_tables, structure_table

_FRONT = "What each way of routing costs and is worth: the checkpoint's schedule and thresholds, both scaled."


def summary_table(models: list[ModelRun]) -> Table:
    """Accuracy, cost and verification of every bundle."""
    rows: list[tuple[str, ...]] = []
    for one in models:
        macs, dense = one.manifest.macs[one.manifest.plan.buckets[0].name], dense_macs(one.config)
        rows.append(
            (
                one.name,
                one.config.routing,
                share(one.top1),
                share(one.reference_top1),
                count(macs),
                f"{macs / dense:.0%}",
                size(sum(file.bytes for file in one.manifest.files)),
                "yes" if one.verification.passed else "NO",
            )
        )
        rows.append(_adaptive_row(one, dense))
        if one.packaged is not None:
            rows.append(_packaged_row(one, one.packaged, dense))
    columns = ("model", "routing", "top-1", "eager top-1", "MACs", "of dense", "files", "verified")
    caption = (
        "token_choice without a plan exports the `full` bucket: exact, and every token runs every layer. With fitted "
        "buckets MACs are the mean over the images, which are those the plan was fitted to."
    )
    remarks = [f"{one.name}: {one.warning}" for one in models if one.warning]
    if not any(one.packaged for one in models):
        remarks.append(f"Core ML is left out: coremltools is not installed; run `{install_line('coreml')}`.")
    return Table("Models", columns, rows, numeric=(2, 3, 4, 5, 6), caption=" ".join([caption, *remarks]))


def _adaptive_row(one: ModelRun, dense: int) -> tuple[str, ...]:
    chosen, manifest = one.adaptive.calibrated.chosen, one.adaptive.exported.manifest
    return (
        "  with fitted buckets",
        manifest.plan.mode,
        share(one.adaptive.top1),
        "",
        count(chosen.expected_macs),
        f"{chosen.expected_macs / dense:.0%}",
        size(sum(file.bytes for file in manifest.files)),
        "yes" if one.adaptive.exported.verification.passed else "NO",
    )


def _packaged_row(one: ModelRun, packaged: Packaged, dense: int) -> tuple[str, ...]:
    chosen, manifest = one.adaptive.calibrated.chosen, packaged.exported.manifest
    return (
        f"  as a Core ML package, {manifest.precision}",
        manifest.plan.mode,
        share(packaged.top1),
        "",
        count(chosen.expected_macs),
        f"{chosen.expected_macs / dense:.0%}",
        size(sum(file.bytes for file in manifest.files)),
        "yes" if packaged.exported.verification.passed else "NO",
    )


def digits_pictures(models: list[ModelRun], folder: Path) -> list[Picture]:
    """Depth maps, and the front of the first model."""
    caption = "Steps that each patch token ran, over the image: warm is deep (paper, Figure 4)."
    maps = [Picture(f"Token depth, {one.name}", folder / f"{one.name}-depth.png", caption) for one in models]
    first = models[0].name
    front = folder / f"{first}-pareto.png"
    return [*maps, Picture(f"Accuracy/cost trade-off, {first}", front, _FRONT, chart=True)]


def details(one: ModelRun) -> list[Table]:
    """Verification of both bundles, and the calibration's front."""
    data = one.verification.as_dict()
    tables = [structure_table(data["structure"]), *parity_tables(data)]
    own = [replace(table, title=f"{one.name}: {table.title}") for table in tables]
    data = one.adaptive.exported.verification.as_dict()
    tables = [front_table(one.adaptive.calibrated), structure_table(data["structure"]), *parity_tables(data)]
    return [
        *own,
        *(replace(table, title=f"{one.name} with fitted buckets: {table.title}") for table in tables),
    ]
