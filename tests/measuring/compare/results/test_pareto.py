"""The picture: which points are on the line, and that names keep clear of one another."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

from morvit_deploy.measuring.compare.results.pareto import FONT, Point, front, pareto

SVG = "{http://www.w3.org/2000/svg}"


def test_the_front_is_what_no_other_beats() -> None:
    a, b, c, d = (
        Point("a", 1, 9, True),
        Point("b", 2, 5, False),
        Point("c", 3, 6, False),
        Point("d", 4, 1, False),
    )
    assert front([d, c, b, a]) == [a, b, d]
    assert front([a, a]) == [a]


def test_one_point_is_no_picture() -> None:
    assert pareto("T", [Point("a", 1, 1, True)], ("x", "y"), "") is None


def test_names_are_escaped_inside_the_picture_and_apart() -> None:
    points = [Point(f"model <{number}>", 4.0 + number / 100, 10.0, number == 0) for number in range(6)]
    picture = pareto("T", [*points, Point("far & away", 60, 100, False)], ("GMACs", "ms"), "")
    assert picture is not None and picture.content is not None
    drawn = ElementTree.fromstring(picture.content)
    names = {text.text: text for text in drawn.iter(f"{SVG}text")}
    assert {*(point.name for point in points), "far & away", "GMACs", "ms"} <= {*names}
    heights = [float(names[point.name].get("y", 0)) for point in points]
    assert all(abs(a - b) >= FONT - 1 for a, b in combinations(heights, 2))
    assert len([*drawn.iter(f"{SVG}circle")]) == 7
    assert {"5", "10", "50", "100"} <= {*names}, "ticks with their numbers"
