"""The table of predictions. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from morvit_deploy.layout import HELD
from morvit_deploy.report import Table, share

APART = "each class has its own probability (sigmoid): they do not sum to 100 %"


def prediction_table(predictions: list[dict[str, Any]], *, with_logits: bool = False) -> Table:
    """The most probable classes of each image; of a sigmoid head, first those above one half.

    Of a head without activation, the largest outputs.
    """
    if any("shape" in one for one in predictions):
        return _table(predictions, (predictions[0]["output"],), _of_shape, with_logits)
    if any("value" in guess for one in predictions for guess in one["top"]):
        return _table(predictions, ("largest", "value", "next"), _of_values, with_logits, numeric=(3,))
    if any("present" in one for one in predictions):
        return _table(predictions, ("above 50 %", "next"), _of_sigmoid, with_logits, caption=APART)
    columns = ("class", "probability", "next")
    return _table(predictions, columns, _of_softmax, with_logits, numeric=(3,))


def _table(
    predictions: list[dict[str, Any]],
    columns: tuple[str, ...],
    cells: Callable[[dict[str, Any]], tuple[str, ...]],
    with_logits: bool,
    **more: Any,
) -> Table:
    rows = []
    for one in predictions:
        logits = (" ".join(f"{value:.4g}" for value in one["logits"]),) if with_logits else ()
        rows.append((one["image"], one["bucket"], *cells(one), *logits))
    names = ("image", "bucket", *columns, *(("logits",) if with_logits else ()))
    return Table("Predictions", names, rows, **more)


def _of_softmax(one: dict[str, Any]) -> tuple[str, ...]:
    best, others = one["top"][0], one["top"][1:]
    return best["label"], share(best["probability"]), _listed(others)


def _of_shape(one: dict[str, Any]) -> tuple[str, ...]:
    return ("×".join(map(str, one["shape"])),)


def _of_values(one: dict[str, Any]) -> tuple[str, ...]:
    best, *others = one["top"]
    rest = ", ".join(f"{guess['label']} {guess['value']:.4g}".replace(" ", HELD) for guess in others)
    return best["label"], f"{best['value']:.4g}", rest


def _of_sigmoid(one: dict[str, Any]) -> tuple[str, ...]:
    present = {guess["index"] for guess in one["present"]}
    others = [guess for guess in one["top"] if guess["index"] not in present]
    return _listed(one["present"]) or "none", _listed(others)


def _listed(guesses: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{guess['label']} {share(guess['probability'])}".replace(" ", HELD) for guess in guesses
    )
