"""How results read: from facts to the tables that the command line and the reports show. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.bundle import Manifest
from morvit_deploy.macs import dense_macs
from morvit_deploy.report import Report, Table, count, share, size

if TYPE_CHECKING:
    from morvit_deploy.verdict import Verification


def export_report(folder: Path, manifest: Manifest, verification: Verification) -> Report:
    """What was written, and that it was verified."""
    parity = verification.as_dict()
    return Report(
        f"Export of {folder}",
        [bundle_table(folder, manifest), structure_table(parity["structure"]), *parity_tables(parity)],
    )


def bundle_table(folder: Path, manifest: Manifest) -> Table:
    """Files, input, outputs, buckets."""
    rows = [
        (
            "target",
            f"{manifest.target}, {manifest.precision}, form {manifest.form}, batch {manifest.batch}"
            + (f", dispatch {manifest.dispatch}" if manifest.plan.adaptive else ""),
        ),
        ("files", ", ".join(f"{file.path} {size(file.bytes)}" for file in manifest.files)),
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


def structure_table(structure: dict[str, Any]) -> Table:
    """What was read off the written graph."""
    applied = ", ".join(f"{block} ×{times}" for block, times in structure["block_applications"].items())
    rows = [
        ("proved", "yes" if structure["proved"] else "no"),
        ("blocks applied", applied),
        ("nodes", str(structure["nodes"])),
        ("weights", f"{size(structure['weight_bytes'])} in a file set of {size(structure['file_bytes'])}"),
        *(("violation", violation) for violation in structure["violations"]),
    ]
    return Table("Structure of the written graph", ("what", "value"), rows)


def parity_tables(parity: dict[str, Any]) -> list[Table]:
    """The gaps, the buckets and the routers' agreement."""
    tables = [_gap_table(parity)]
    if parity["buckets"]:
        tables.append(_buckets_table(parity))
    if "decision_agreement" in parity["routing_gap"]:
        tables += _change_tables(parity["routing_gap"])
    agreement = parity["router_agreement"]
    if agreement is not None:
        rows = [(str(step), share(value)) for step, value in enumerate(agreement, start=1)]
        caption = "graphs against the model they were unrolled from" if parity["buckets"] else ""
        columns = ("step", "decisions alike")
        tables.append(Table("Router agreement", columns, rows, numeric=(0, 1), caption=caption))
    return tables


def _gap_table(parity: dict[str, Any]) -> Table:
    named = ("routing", "unrolling", "conversion")
    gaps = [(f"{name} gap", parity[f"{name}_gap"]) for name in named if parity[f"{name}_gap"]]
    if parity["dispatch"]:
        gaps.append(("as dispatched", parity["dispatch"]))
    rows = [
        (
            name,
            _scientific(gap["max_abs"]),
            "measured only" if gap["tolerance"] is None else _scientific(gap["tolerance"]),
            share(gap["top1_agreement"]),
            ("pass" if gap["passed"] else "FAIL") if gap["tolerance"] is not None else "",
        )
        for name, gap in gaps
    ]
    kind = "synthetic images" if parity["synthetic"] else "images"
    judged = parity["images"] - parity["ambiguous"]
    caption = (
        f"{judged} of {parity['images']} {kind} judged"
        + (f"; {parity['ambiguous']} have a routing margin below 1e-4" if parity["ambiguous"] else "")
        + (f"; first to diverge: {parity['first_divergence']}" if parity["first_divergence"] else "")
    )
    columns = ("gap", "max |Δlogit|", "allowed", "top-1 agreement", "")
    return Table("Parity with the float64 reference", columns, rows, numeric=(1, 2, 3), caption=caption)


def _buckets_table(parity: dict[str, Any]) -> Table:
    """What each bucket was tried with."""
    rows = [
        (
            seen["name"],
            *(str(seen[key]) for key in ("served", "fitting", "judged")),
            _scientific(seen["max_abs"]),
        )
        for seen in parity["buckets"]
    ]
    dispatch = parity["dispatch"] or {"overflowed": 0}
    caption = (
        f"served: by the bundle's own choice, {dispatch['overflowed']} of them after their predicted bucket "
        "overflowed; judged: run in this bucket and compared, whatever it needs"
    )
    columns = ("bucket", "served", "fitting", "judged", "max |Δlogit|")
    return Table("Images in each bucket", columns, rows, numeric=(1, 2, 3, 4), caption=caption)


def _change_tables(gap: dict[str, Any]) -> list[Table]:
    """What the thresholds change against the model as it was trained."""
    pairs = zip(gap["decision_agreement"], gap["kept_share"], strict=True)
    rows = [(str(step), share(alike), share(kept)) for step, (alike, kept) in enumerate(pairs, start=1)]
    steps = Table(
        "Routing gap: the plan's model against the trained one",
        ("step", "decisions alike", "tokens kept, mean"),
        rows,
        numeric=(0, 1, 2),
    )
    margins = gap["margin_histogram"]
    return [
        steps,
        Table(
            "Images by routing margin",
            ("margin, router logits", "images"),
            [(name, str(number)) for name, number in margins.items()],
            numeric=(1,),
        ),
    ]


def prediction_table(answers: list[dict[str, Any]], *, with_logits: bool = False) -> Table:
    """The most probable classes of each image."""
    columns = ["image", "bucket", "class", "probability", "next"]
    rows = []
    for answer in answers:
        best, others = answer["top"][0], answer["top"][1:]
        row = [
            answer["image"],
            answer["bucket"],
            best["label"],
            share(best["probability"]),
            ", ".join(f"{guess['label']} {share(guess['probability'])}" for guess in others),
        ]
        if with_logits:
            row.append(" ".join(f"{value:.4g}" for value in answer["logits"]))
        rows.append(tuple(row))
    return Table("Predictions", (*columns, "logits") if with_logits else tuple(columns), rows, numeric=(3,))


def _scientific(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2e}"


def _shape(shape: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(str(dim) for dim in shape) + "]"
