"""Tables of a verification for the command line and for reports. No torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from morvit_deploy.report import Table, numbered, share, size

if TYPE_CHECKING:
    from morvit_deploy.verifying.outcome import Verification


def structure_tables(structure: dict[str, Any]) -> list[Table]:
    """Return the structure of the written graph; for Core ML also operations known to leave the Neural Engine."""
    return [structure_table(structure), *neural_engine_tables(structure.get("functions"))]


def neural_engine_tables(functions: dict[str, Any] | None) -> list[Table]:
    """Return the operations of a Core ML package that are known to leave the Neural Engine, with sources.

    `functions` maps each name to the number of its `operations` and, in `leave_neural_engine`, the operations that
    leave: `what`, `count`, `said`, `source`. Returns no tables for other targets.
    """
    if not functions:
        return []
    leaving = {
        name: {one["what"]: one for one in of["leave_neural_engine"]} for name, of in functions.items()
    }
    often = Counter[str]()
    for of_one in leaving.values():
        often.update({what: one["count"] for what, one in of_one.items()})
    reasons = {what: one for of_one in leaving.values() for what, one in of_one.items()}
    known = {what: reasons[what] for what, _ in often.most_common()}
    counts = [
        (what, *(str(one[what]["count"]) if what in one else "" for one in leaving.values()))
        for what in known
    ]
    leave = ("total of these", *(str(sum(one["count"] for one in of.values())) for of in leaving.values()))
    total = ("all operations", *(str(of["operations"]) for of in functions.values()))
    numeric = tuple(range(1, len(functions) + 1))
    title = "Operations known to leave the Neural Engine, by function"
    tables = [Table(title, ("operation", *functions), [*counts, leave, total], numeric=numeric)]
    return [*tables, _sources_table(known)] if known else tables


def _sources_table(known: dict[str, Any]) -> Table:
    """Return what is known of each operation, with the sources in the caption."""
    cited = dict.fromkeys(one["source"] for one in known.values())
    sources = {source: number for number, source in enumerate(cited, start=1)}
    alike: dict[tuple[str, str], list[str]] = {}
    for what, one in known.items():
        alike.setdefault((one["said"], one["source"]), []).append(what)
    rows = [(", ".join(names), f"{said} [{sources[source]}]") for (said, source), names in alike.items()]
    listed = "\n".join(f"[{number}] {source}" for source, number in sources.items())
    caption = f"reported by others; `bench` on a Mac shows where each operation runs\n{listed}"
    return Table("Known limitations of these operations", ("operation", "reported"), rows, caption=caption)


def structure_table(structure: dict[str, Any]) -> Table:
    """Return the structure of the written graph."""
    applied = ", ".join(f"{block} ×{times}" for block, times in structure["block_applications"].items())
    rows = [
        ("proved", "yes" if structure["proved"] else "no"),
        ("blocks applied", applied),
        ("nodes", str(structure["nodes"])),
        ("weights", f"{size(structure['weight_bytes'])} of {size(structure['file_bytes'])} in all files"),
        *(("violation", violation) for violation in structure["violations"]),
    ]
    return Table("Structure of the written graph", ("what", "value"), rows)


def outcome_sentence(verification: Verification) -> str:
    """The outcome of a verification in a sentence."""
    images = numbered(verification.images, "synthetic image" if verification.synthetic else "image")
    if not verification.passed:
        return f"FAILED on {images}: the bundle does not match the checkpoint."
    gap, kept = verification.conversion_gap, verification.routing_gap.top1_agreement
    return (
        f"Passed on {images}: the written graph is proved, and its logits differ from the reference by at most "
        f"{gap.max_abs:.2g}. The plan's model agrees with the trained one on {share(kept)} of the classes."
    )


def parity_tables(parity: dict[str, Any]) -> list[Table]:
    """Return gaps, buckets and router agreement."""
    tables = [_gap_table(parity)]
    if parity["dispatch"] or parity["unrolling_gap"]:
        tables.append(_buckets_table(parity))
    if "decision_agreement" in parity["routing_gap"]:
        tables += _change_tables(parity["routing_gap"])
    if parity["fidelity"]:
        tables += fidelity_tables(parity)
    agreement = parity["router_agreement"]
    if agreement is not None:
        rows = [(str(step), share(value)) for step, value in enumerate(agreement, start=1)]
        approximated = parity["dispatch"] or parity["unrolling_gap"]
        caption = "static graphs and the model they were unrolled from" if approximated else ""
        if parity["fidelity"]:
            caption = "of the candidates at each step, over all buckets"
        columns = ("step", "equal decisions")
        tables.append(Table("Router agreement", columns, rows, numeric=(0, 1), caption=caption))
    return tables


def _gap_table(parity: dict[str, Any]) -> Table:
    named = ("source", "routing", "unrolling", "conversion")
    gaps = [(f"{name} gap", parity[f"{name}_gap"]) for name in named if parity.get(f"{name}_gap")]
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
    compared = parity["images"] - parity["ambiguous"]
    caption = (
        f"{compared} of {parity['images']} {kind} compared, run by {parity['runtime']}"
        + (
            f"; {parity['ambiguous']} have a routing margin below 1e-4 of the logits' spread"
            if parity["ambiguous"]
            else ""
        )
        + (f"; first divergence: {parity['first_divergence']}" if parity["first_divergence"] else "")
        + (f"; reading of the checkpoint: {parity['reading']}" if "reading" in parity else "")
    )
    columns = ("gap", "max |Δlogit|", "allowed", "top-1 agreement", "")
    return Table("Parity with the float64 reference", columns, rows, numeric=(1, 2, 3), caption=caption)


def _buckets_table(parity: dict[str, Any]) -> Table:
    """Return the images of each bucket."""
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
        f"served: bucket chosen by the bundle, for {dispatch['overflowed']} images after their predicted bucket "
        "overflowed; fitting: within the capacity; compared: every image is run in every bucket"
    )
    edges = parity["edges"]
    if edges:
        caption += (
            f"; bounds: {edges['reached']} of {edges['wanted']} token counts (capacity, capacity + 1) reached by "
            f"{edges['compared']} constructed pictures, {edges['wrong']} wrong"
        )
        if edges["unserved"]:
            caption += f"; no image ran in {', '.join(edges['unserved'])}: give some that do with --images"
    columns = ("bucket", "served", "fitting", "compared", "max |Δlogit|")
    return Table("Images in each bucket", columns, rows, numeric=(1, 2, 3, 4), caption=caption)


def _change_tables(gap: dict[str, Any]) -> list[Table]:
    """Return how thresholds change the routing of the trained model."""
    pairs = zip(gap["decision_agreement"], gap["kept_share"], strict=True)
    rows = [(str(step), share(alike), share(kept)) for step, (alike, kept) in enumerate(pairs, start=1)]
    steps = Table(
        "Routing gap: plan's model and trained model",
        ("step", "equal decisions", "tokens kept, mean"),
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


def fidelity_tables(parity: dict[str, Any]) -> list[Table]:
    """Return the agreement of a bundle below fp32 with the reference: logits, classes and routing by bucket."""
    gate, seen = parity["gate"], parity["fidelity"]
    judged = parity.get("judges_tokens", True)  # which tokens merge is shown alone
    tokens = f"{gate['tokens']:.2%} of the tokens at each step, " if judged else ""
    logits = Table(
        f"Fidelity in {parity['precision']}",
        ("bucket", "images", "logit SNR", "median", "classes changed", "largest margin among them"),
        [
            (
                one["bucket"],
                str(one["images"]),
                "not finite" if one["snr_db"] is None else f"{one['snr_db']:.1f} dB",
                "" if one["median_snr_db"] is None else f"{one['median_snr_db']:.1f} dB",
                str(one["class_flips"]),
                _margin(one["largest_margin"]),
            )
            for one in seen
        ],
        numeric=(1, 2, 3, 4, 5),
        caption=f"gate: {tokens}{gate['top1']:.2%} of the classes, {gate['snr_db']:.0f} dB in the median",
    )
    rows = [
        (
            one["bucket"],
            str(number),
            f"{alike:.2%}",
            str(step["flips"]),
            _margin(step["median_margin"]),
            _margin(step["largest_margin"]),
        )
        for one in seen
        for number, (alike, step) in enumerate(
            zip(one["token_agreement"], one["steps"], strict=False), start=1
        )
    ]
    if not rows:
        return [logits]
    columns = ("bucket", "step", "token agreement", "decisions changed", "their median margin", "largest")
    return [logits, Table("Routing below fp32", columns, rows, numeric=(1, 2, 3, 4, 5))]


def decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f} dB"


def _margin(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _scientific(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2e}"
