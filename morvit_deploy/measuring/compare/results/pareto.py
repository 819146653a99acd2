"""Time against MACs, or against published accuracy, as an SVG: a point for each row, without a plotting library."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from morvit_deploy.report import Picture

WIDTH, HEIGHT = 640, 420  # pixels; on a phone the page scales it
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 16, 48
FONT = 13
LETTER = 0.56  # mean width of a letter, in font sizes
DOT, BESIDE, MIDDLE = (
    5,
    8,
    4,
)  # a dot's radius, from its middle to a name, and from a name's middle to its line
OURS, THEIRS, FRONT = "#1f6fb4", "#8fa3b5", "#c0504d"
TICKS = (1, 2, 5)  # of each decade


@dataclass(frozen=True)
class Point:
    """A model: where it lies, and whether it is one of the user's."""

    name: str
    x: float
    y: float
    ours: bool


def pareto(title: str, points: Sequence[Point], axes: tuple[str, str], caption: str) -> Picture | None:
    """Both axes logarithmic, the less the better; None for fewer than two points.

    The line joins the points that no other beats in both.
    """
    if len(points) < 2:
        return None
    scale = _Scale(points)
    drawn = [*scale.grid(axes), _line(front(points), scale), *_marks(points, scale)]
    content = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="system-ui,sans-serif" font-size="{FONT}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(drawn)}</svg>'
    )
    return Picture(title, Path("pareto.svg"), caption, content.encode(), chart=True)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other equals or beats in both, from left to right."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, one.y)):
        if not best or point.y < best[-1].y:
            best.append(point)
    return best


class _Scale:
    """From values to pixels, with room around the outermost points."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.x = self._range([point.x for point in points])
        self.y = self._range([point.y for point in points])

    @staticmethod
    def _range(values: Sequence[float]) -> tuple[float, float]:
        return math.log10(min(values)) - 0.1, math.log10(max(values)) + 0.1

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels from the left and from the top."""
        (x0, x1), (y0, y1) = self.x, self.y
        across, up = (math.log10(x) - x0) / (x1 - x0), (math.log10(y) - y0) / (y1 - y0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def grid(self, axes: tuple[str, str]) -> list[str]:
        """Ticks with their numbers, and what the axes show."""
        drawn = []
        for tick in _ticks(self.x):
            x, _ = self.at(tick, 10 ** self.y[0])
            drawn.append(_rule(x, TOP, x, HEIGHT - BOTTOM))
            drawn.append(_text(x, HEIGHT - BOTTOM + 18, f"{tick:g}", "middle"))
        for tick in _ticks(self.y):
            _, y = self.at(10 ** self.x[0], tick)
            drawn.append(_rule(LEFT, y, WIDTH - RIGHT, y))
            drawn.append(_text(LEFT - 6, y + 4, f"{tick:g}", "end"))
        across, up = axes
        drawn.append(_text(WIDTH - RIGHT, HEIGHT - 8, across, "end"))
        drawn.append(_text(LEFT + 6, TOP + 12, up, "start"))
        return drawn


def _ticks(bounds: tuple[float, float]) -> list[float]:
    low, high = bounds
    decades = range(math.floor(low), math.ceil(high) + 1)
    every = [step * 10.0**decade for decade in decades for step in TICKS]
    return [tick for tick in every if low <= math.log10(tick) <= high]


def _rule(x1: float, y1: float, x2: float, y2: float, color: str = "#ddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _text(x: float, y: float, words: str, anchor: str, fill: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{html.escape(words)}</text>'


def _line(best: Sequence[Point], scale: _Scale) -> str:
    places = " ".join("{:.1f},{:.1f}".format(*scale.at(point.x, point.y)) for point in best)
    return f'<polyline points="{places}" fill="none" stroke="{FRONT}" stroke-dasharray="4 3"/>'


@dataclass(frozen=True)
class _Name:
    """Where a name stands: from left to right, on a line of text."""

    left: float
    right: float
    line: float

    def meets(self, other: _Name) -> bool:
        return abs(self.line - other.line) < FONT and self.left < other.right and other.left < self.right

    def covers(self, x: float, y: float) -> bool:
        """Whether a dot there would lie under the name."""
        return self.left - DOT < x < self.right + DOT and abs(y + MIDDLE - self.line) < FONT / 2 + DOT


def _place(
    x: float, y: float, wide: float, taken: Sequence[_Name], dots: Sequence[tuple[float, float]]
) -> _Name:
    """The nearest place beside a dot, right of it first, where the name meets no other and no dot."""
    steps = [sign * FONT / 2 * step for step in range(HEIGHT // FONT) for sign in (1, -1)]
    places = [
        _Name(left, left + wide, y + MIDDLE + step)
        for step in steps
        for left in (x + BESIDE, x - BESIDE - wide)
    ]
    inside = [
        place
        for place in places
        if place.left >= LEFT
        and place.right <= WIDTH - RIGHT
        and TOP + FONT <= place.line <= HEIGHT - BOTTOM - 4
    ] or places[:1]
    clear = (
        place
        for place in inside
        if not any(map(place.meets, taken)) and not any(place.covers(*dot) for dot in dots)
    )
    return next(clear, inside[0])


def _marks(points: Sequence[Point], scale: _Scale) -> list[str]:
    """A dot and a name for each, and a line between them where the name had to move."""
    drawn: list[str] = []
    taken: list[_Name] = []
    dots = [scale.at(point.x, point.y) for point in points]
    for point in sorted(points, key=lambda one: (not one.ours, one.y)):
        x, y = scale.at(point.x, point.y)
        name = _place(x, y, LETTER * FONT * len(point.name), taken, dots)
        taken.append(name)
        dot, ink = (OURS, OURS) if point.ours else (THEIRS, "#333")
        end, anchor = (name.right, "end") if name.left < x else (name.left, "start")
        if abs(name.line - y - MIDDLE) > FONT / 2:
            drawn.append(_rule(x, y, end, name.line - MIDDLE, "#aaa"))
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT}" fill="{dot}"/>')
        drawn.append(_text(end, name.line, point.name, anchor, ink))
    return drawn
