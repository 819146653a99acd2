"""Tables of an export: files, buckets, and how a bundle below fp32 was made. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.bars import bars
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.model.macs import dense_macs
from morvit_deploy.report import Report, Table, count, share, size
from morvit_deploy.verifying.views import decibels, outcome_sentence, parity_tables, structure_tables

if TYPE_CHECKING:
    from morvit_deploy.verifying.outcome import Verification


def export_report(folder: Path, manifest: Manifest, verification: Verification) -> Report:
    """All tables of one export."""
    parity = verification.as_dict()
    return Report(
        f"Export of {folder}",
        [
            bundle_table(folder, manifest),
            *lowering_tables(manifest),
            *structure_tables(parity["structure"]),
            *parity_tables(parity),
        ],
        outcome_sentence(verification),
        bars("MACs of one image", _macs(manifest), "dense: every token in every layer"),
    )


def _macs(manifest: Manifest) -> list[tuple[str, float, str]]:
    """Each bucket's MACs, and those of every token in every layer."""
    macs = {bucket.name: manifest.macs[bucket.name] for bucket in manifest.plan.buckets}
    macs["dense"] = dense_macs(manifest.config)
    return [(name, value, f"{count(value)}MACs") for name, value in macs.items()]


def bundle_table(folder: Path, manifest: Manifest) -> Table:
    """Files, input, outputs, buckets."""
    rows = [
        (
            "target",
            ", ".join(filter(None, (manifest.target, manifest.target_form.said, manifest.precision)))
            + f", form {manifest.form}, batch {manifest.batch}"
            + (f", dispatch {manifest.dispatch}" if manifest.plan.adaptive else ""),
        ),
        ("files", ", ".join(_files(manifest))),
        *((f"input {p.name}", f"{p.dtype} {_shape(p.shape)}") for p in manifest.inputs),
        *((f"output {p.name}", f"{p.dtype} {_shape(p.shape)}") for p in manifest.outputs),
    ]
    dense = dense_macs(manifest.config)
    for bucket in manifest.plan.buckets:
        macs = manifest.macs[bucket.name]
        held = (
            f"; holds {', '.join(map(str, bucket.capacity))} patch tokens" if manifest.plan.adaptive else ""
        )
        served = "" if bucket.share is None else f"; {share(bucket.share)} of the calibration images"
        rows.append(
            (
                f"bucket {bucket.name}",
                f"{count(macs)}MACs, {dense / macs:.2f}× fewer than every token in every layer{held}{served}",
            )
        )
    return Table(f"Bundle {folder}", ("what", "value"), rows)


def _files(manifest: Manifest) -> list[str]:
    """Each file with its size; a folder inside the bundle only with number and total size of its files."""
    listed = []
    for top in dict.fromkeys(Path(file.path).parts[0] for file in manifest.files):
        held = [file for file in manifest.files if Path(file.path).parts[0] == top]
        inside = "" if held[0].path == top else f" in {len(held)} files"
        listed.append(f"{top} {size(sum(file.bytes for file in held))}{inside}")
    return listed


def lowering_tables(manifest: Manifest) -> list[Table]:
    """How a bundle below fp32 was made; none for fp32."""
    lowering = manifest.lowering
    if lowering is None:
        return []
    record = lowering.facts
    rows = []
    if lowering.flavor:
        ranges = f"{record['ranges']} ranges by {lowering.calibration} from {lowering.images} images"
        bits = f"{lowering.weight_bits or 8}-bit weights"
        rows.append(
            (
                "int8",
                f"flavor {lowering.flavor}, {bits}, {ranges}" + (", smoothed" if lowering.smoothing else ""),
            )
        )
    if "stored" in record:
        layers = ", ".join(f"{count} in {kind}" for kind, count in record["stored"].items())
        rows.append(("layers copied for late steps" if manifest.precision == "fp32" else "layers", layers))
    for name, seen in lowering.buckets.items():
        forced = f", {seen.forced} of them not its own" if seen.forced else ""
        rows.append((f"ranges of {name}", f"{seen.images} images{forced}"))
    if lowering.lifted:
        rows.append(("in float", ", ".join(lowering.lifted)))
    for name, speed in record.get("speed", {}).items():
        low = next(ms for kind, ms in speed.items() if kind not in ("fp32_ms", "ratio"))
        line = f"{low:.3g} ms against {speed['fp32_ms']:.3g} ms in fp32, {speed['ratio']:.2f}×"
        rows.append((f"time of {name}", line))
    for name, largest in record.get("largest_activations", {}).items():
        rows.append((f"largest |{name}|", f"{largest:.4g} of 65504"))
    rows += [("missed, allowed", missed) for missed in lowering.accepted]
    tables = [Table(f"Made in {manifest.precision}", ("what", "value"), rows)] if rows else []
    if record.get("sensitivity", {}).get("layers"):
        tables.append(_sensitivity_table(record["sensitivity"]))
    return tables


def _sensitivity_table(found: dict[str, Any]) -> Table:
    """Each layer, the worst first, and the accuracy that it gains in float."""
    rows = [
        (
            one["layer"],
            f"{one['alone']['drop']:.2f}",
            decibels(one["alone"]["snr_db"]),
            "" if one["after"] is None else f"{one['after']['drop']:.2f}",
            "" if one["after"] is None else decibels(one["after"]["snr_db"]),
        )
        for one in found["layers"]
    ]
    before = found["before"]
    caption = (
        f"points lost with every layer in int8: {before['drop']:.2f} ({decibels(before['snr_db'])}), allowed "
        f"{found['allowed']:.2f}; " + ("met" if found["met"] else "not met even with all layers in float")
    )
    columns = ("layer", "lost with it in float", "SNR", "lost with it and all above", "SNR")
    return Table("Layers that lose most accuracy in int8", columns, rows, (1, 2, 3, 4), caption)


def _shape(shape: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(str(dim) for dim in shape) + "]"
