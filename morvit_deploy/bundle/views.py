"""The table of predictions. No torch."""

from __future__ import annotations

from typing import Any

from morvit_deploy.layout import HELD
from morvit_deploy.report import Table, share


def prediction_table(predictions: list[dict[str, Any]], *, with_logits: bool = False) -> Table:
    """The most probable classes of each image."""
    columns = ["image", "bucket", "class", "probability", "next"]
    rows = []
    for one in predictions:
        best, others = one["top"][0], one["top"][1:]
        row = [
            one["image"],
            one["bucket"],
            best["label"],
            share(best["probability"]),
            ", ".join(
                f"{guess['label']} {share(guess['probability'])}".replace(" ", HELD) for guess in others
            ),
        ]
        if with_logits:
            row.append(" ".join(f"{value:.4g}" for value in one["logits"]))
        rows.append(tuple(row))
    return Table("Predictions", (*columns, "logits") if with_logits else tuple(columns), rows, numeric=(3,))
