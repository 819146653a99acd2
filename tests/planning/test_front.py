"""The picture and the tables of a calibration."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
from calibration_setup import calibrated
from PIL import Image

from morvit_deploy.planning.front import calibration_report, draw, front_table
from morvit_deploy.planning.rounds import Calibrated
from morvit_deploy.report import Table

SIZE = (1080, 690)  # 7.2 × 4.6 inches at 150 dots


def in_ms(found: Calibrated, factor: float = 1e-5) -> Calibrated:
    points = [replace(point, expected=factor * point.expected) for point in found.points]
    chosen = points[found.points.index(found.chosen)]
    recommended = None if found.recommended is None else points[found.points.index(found.recommended)]
    return replace(
        found, points=points, chosen=chosen, recommended=recommended, unit="ms", dense=factor * found.dense
    )


FOUND = {
    "threshold": calibrated(),
    "labelled": calibrated(labelled=True),
    "top-k": calibrated("topk"),
    "one point": calibrated("depth", labelled=True),
    "milliseconds": in_ms(calibrated()),
    "billions": replace(in_ms(calibrated(), 1e6), unit="MACs"),
    "every token is far": replace(calibrated(), dense=4e7),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that `draw` makes."""
    figures: list[Any] = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k)
    )
    return figures


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_a_picture(found: Calibrated, drawn: list[Any]) -> None:
    content = draw(found)
    assert content.startswith(b"\x89PNG\r\n")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == SIZE
        assert len(picture.convert("L").getcolors() or []) > 10  # something is on it
    (axes,) = drawn[0].axes
    labels = [text for text in axes.texts if text.get_text()[0].isdigit()]
    assert [text.get_text() for text in labels] == [
        f"{point.scale:g}×" if point.scale is not None else str(len(point.ladder.schedules))  # type: ignore[union-attr]  # it has one
        for point in sorted(found.points, key=lambda point: (point.kind != "topk", point.expected))
    ]
    low, high = axes.get_xlim()
    for line in axes.get_lines():
        if line.get_label() in ("this plan", "top-k: the same number of tokens for every image"):
            assert (low < np.asarray(line.get_xdata())).all() and (np.asarray(line.get_xdata()) < high).all()


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_the_legend_and_the_labels_lie_beside_the_data(found: Calibrated, drawn: list[Any]) -> None:
    draw(found)
    figure = drawn[0]
    (axes,), (legend,) = figure.axes, figure.legends
    assert legend.get_window_extent().ymin >= axes.get_window_extent().ymax
    points = np.concatenate([axes.transData.transform(line.get_xydata()) for line in axes.get_lines()[:2]])
    for text in axes.texts:
        box = text.get_window_extent()
        assert not any(box.contains(*point) for point in points)
        assert box.x0 >= 0 and box.x1 <= SIZE[0] and box.y0 >= 0 and box.y1 <= SIZE[1]


def test_axes_say_what_is_shown(drawn: list[Any]) -> None:
    for name in FOUND:
        draw(FOUND[name])
    axes = dict(zip(FOUND, (figure.axes[0] for figure in drawn), strict=True))
    assert "thousand" not in axes["threshold"].get_xlabel()
    assert axes["threshold"].get_xlabel().endswith("million MACs, on 5 calibration images")
    assert "milliseconds" in axes["milliseconds"].get_xlabel()
    assert "billion MACs" in axes["billions"].get_xlabel()
    assert axes["labelled"].get_ylabel() == "top-1, %"
    assert axes["threshold"].get_ylabel() == "agreement with the trained model, %"
    texts = {name: [text.get_text() for text in ax.texts] for name, ax in axes.items()}
    assert "every token in every step: 40 →" in texts["every token is far"]
    assert "as\ntrained" in texts["labelled"] and "as\ntrained" not in texts["threshold"]


def test_the_front_is_sorted_and_the_plan_is_marked() -> None:
    found = FOUND["labelled"]
    table = front_table(found)
    assert len(table.rows) == 14 and [row[0] for row in table.rows].count("►") == 1
    marked = next(row for row in table.rows if row[0])
    cells = dict(zip(table.columns, marked, strict=True))
    assert (cells["routing"], cells["scale"], cells["buckets"]) == ("threshold", "1", "2")
    assert cells["top-1"] == cells["agreement"] == "80.00 %" and cells["unpadded"].endswith("MACs")
    cheaper = [float(row[5].rstrip("×")) for row in table.rows]
    assert cheaper == sorted(cheaper, reverse=True)


@pytest.mark.parametrize("name", FOUND)
def test_a_report(name: str) -> None:
    found = FOUND[name]
    report = calibration_report(found, Path("plan.json"), Path("plan.pareto.png"))
    titles = [part.title for part in report.parts]
    buckets = [] if name == "top-k" else ["Buckets"]
    assert titles == ["Pareto front", "Accuracy/cost trade-off", "Adaptive depth", "Plan", *buckets]
    assert report.result == found.conclusion and report.markdown().index(report.result) < 40
    plan = report.parts[3]
    assert isinstance(plan, Table)
    facts = {row[0]: row[1] for row in plan.rows}
    assert facts["plan"] == "plan.json" and facts["images"] == "5"
    assert ("top-1" in facts) == (found.trained_top1 is not None)
    assert ("thresholds" in facts) == (found.plan.mode == "threshold")
    assert "nan" not in report.markdown() and "None" not in report.markdown()


def test_unreadable_images_are_counted() -> None:
    found = replace(FOUND["threshold"], bad=[("a.png", "a.png is torn")])
    assert found.plan.calibration is not None
    facts = found.plan.calibration | {"unreadable": 1}
    found = replace(found, plan=found.plan.model_copy(update={"calibration": facts}))
    plan = calibration_report(found, Path("plan.json"), Path("p.png")).parts[3]
    assert isinstance(plan, Table) and ("images", "5, 1 unreadable") in plan.rows
