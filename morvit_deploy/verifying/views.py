"""How results read: from a verification to the tables that the command line and the reports show. No torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from morvit_deploy.report import Table, share, size

if TYPE_CHECKING:
    pass


def structure_tables(structure: dict[str, Any]) -> list[Table]:
    """What was read off the written graph; of a Core ML package also what is known to leave the Neural Engine."""
    return [structure_table(structure), *neural_engine_tables(structure.get("functions"))]


def neural_engine_tables(functions: dict[str, Any] | None) -> list[Table]:
    """Operations of each function of a Core ML package that are known to leave the Neural Engine, and who says so.

    `functions` has for each name the number of its `operations` and, under `leave_neural_engine`, what leaves:
    `what`, `count`, `said`, `source`. No tables for other targets.
    """
    if not functions:
        return []
    leaving = {
        name: {one["what"]: one for one in told["leave_neural_engine"]} for name, told in functions.items()
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
    leave = ("all of these", *(str(sum(one["count"] for one in told.values())) for told in leaving.values()))
    total = ("all operations", *(str(told["operations"]) for told in functions.values()))
    numeric = tuple(range(1, len(functions) + 1))
    title = "Operations known to leave the Neural Engine, by function"
    tables = [Table(title, ("operation", *functions), [*counts, leave, total], numeric=numeric)]
    return [*tables, _sources_table(known)] if known else tables


def _sources_table(known: dict[str, Any]) -> Table:
    """What is known of each operation, and under the table where it is said."""
    cited = dict.fromkeys(one["source"] for one in known.values())
    sources = {source: number for number, source in enumerate(cited, start=1)}
    alike: dict[tuple[str, str], list[str]] = {}
    for what, one in known.items():
        alike.setdefault((one["said"], one["source"]), []).append(what)
    rows = [(", ".join(names), f"{said} [{sources[source]}]") for (said, source), names in alike.items()]
    listed = "\n".join(f"[{number}] {source}" for source, number in sources.items())
    caption = (
        f"findings of others, where to look first: `bench` on a Mac shows where each operation runs\n{listed}"
    )
    return Table("What is known of them", ("operation", "what is known"), rows, caption=caption)


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
    if parity["fidelity"]:
        tables += fidelity_tables(parity)
    agreement = parity["router_agreement"]
    if agreement is not None:
        rows = [(str(step), share(value)) for step, value in enumerate(agreement, start=1)]
        caption = "graphs against the model they were unrolled from" if parity["buckets"] else ""
        if parity["fidelity"]:
            caption = "of the tokens that face the router at a step, every bucket's together"
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
        f"{judged} of {parity['images']} {kind} judged, answered by {parity['runtime']}"
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


def fidelity_tables(parity: dict[str, Any]) -> list[Table]:
    """What a bundle below fp32 keeps of the reference: answers, and tokens routed alike, of each bucket."""
    gate, seen = parity["gate"], parity["fidelity"]
    answers = Table(
        f"Fidelity in {parity['precision']}",
        ("bucket", "images", "logit SNR", "classes changed", "largest margin among them"),
        [
            (
                one["bucket"],
                str(one["images"]),
                "not finite" if one["snr_db"] is None else f"{one['snr_db']:.1f} dB",
                str(one["class_flips"]),
                _margin(one["largest_margin"]),
            )
            for one in seen
        ],
        numeric=(1, 2, 3, 4),
        caption=f"gate: {gate['tokens']:.2%} of the tokens at each step, {gate['top1']:.2%} of the classes",
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
        return [answers]
    columns = ("bucket", "step", "tokens routed alike", "decisions flipped", "their median margin", "largest")
    return [answers, Table("Routing below fp32", columns, rows, numeric=(1, 2, 3, 4, 5))]


def decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f} dB"


def _margin(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _scientific(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2e}"
