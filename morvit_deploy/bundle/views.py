"""How predictions read. No torch."""

from __future__ import annotations

from typing import Any

from morvit_deploy.layout import HELD
from morvit_deploy.report import Table, share


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
            ", ".join(
                f"{guess['label']} {share(guess['probability'])}".replace(" ", HELD) for guess in others
            ),
        ]
        if with_logits:
            row.append(" ".join(f"{value:.4g}" for value in answer["logits"]))
        rows.append(tuple(row))
    return Table("Predictions", (*columns, "logits") if with_logits else tuple(columns), rows, numeric=(3,))
