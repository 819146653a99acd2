"""A bar chart as SVG: a few labelled numbers of a report, without a plotting library."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from morvit_deploy.report import Picture

WIDTH, ROW, MARGIN = 440, 44, 12  # pixels, readable on a phone; a row is a label above its bar
BAR, FONT = 14, 15
NUMBER = 110  # pixels right of the longest bar, for its number


def bars(title: str, rows: Sequence[tuple[str, float, str]], caption: str = "") -> Picture | None:
    """A bar for each row of label, value and the value in words; None without anything to compare.

    The first bar is the report's subject and darker than the others.
    """
    most = max((value for _, value, _ in rows), default=0.0)
    if len(rows) < 2 or most <= 0:
        return None
    height = ROW * len(rows) + MARGIN
    drawn = "".join(_bar(number, row, most) for number, row in enumerate(rows))
    content = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui,sans-serif" font-size="{FONT}">'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{drawn}</svg>'
    )
    return Picture(title, Path("bars.svg"), caption, content.encode(), chart=True)


def _bar(number: int, row: tuple[str, float, str], most: float) -> str:
    label, value, words = row
    length, top = (WIDTH - NUMBER) * max(value, 0.0) / most, MARGIN / 2 + ROW * number
    fill = "#1f6fb4" if number == 0 else "#8fa3b5"
    return (
        f'<text x="0" y="{top + FONT:g}">{html.escape(label)}</text>'
        f'<rect x="0" y="{top + FONT + 6:g}" width="{length:.1f}" height="{BAR}" fill="{fill}"/>'
        f'<text x="{length + 8:.1f}" y="{top + FONT + 6 + BAR - 2:g}">{html.escape(words)}</text>'
    )
