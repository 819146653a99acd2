"""Stacked bars as SVG: a group of labelled rows for each bundle, without a plotting library."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from morvit_deploy.files import OWN_SVG
from morvit_deploy.report import Picture, three_digits

WIDTH, ROW, TITLE, MARGIN = 440, 46, 34, 12  # pixels, readable on a phone; a row is a label above its bar
BAR, FONT, SMALL = 14, 15, 12
NUMBER = 90  # pixels right of the longest bar, for its milliseconds
FILLS = ("#1f6fb4", "#e08a1e", "#8fa3b5", "#5a9a4c")  # of the kinds, in their order; told apart in grays, too

Row = tuple[str, Mapping[str, float], str]  # label, kind to milliseconds, words beside the label


def stacked(title: str, groups: Sequence[tuple[str, Sequence[Row]]], kinds: Mapping[str, str]) -> Picture:
    """Rows of bars by kind on one scale; `kinds` are their names in the legend."""
    most = max((sum(ms.values()) for _, rows in groups for _, ms, _ in rows), default=0.0) or 1.0
    drawn, top = [_legend(list(kinds.values()))], MARGIN + TITLE
    for heading, rows in groups:
        drawn.append(_text(0, top + FONT, heading, FONT, bold=True))
        top += TITLE
        for row in rows:
            drawn.append(_row(top, row, list(kinds), most))
            top += ROW
    width = WIDTH + 2 * MARGIN
    content = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-MARGIN} 0 {width} {top}" width="{width}" height="{top}" '
        f'font-family="system-ui,sans-serif">{OWN_SVG}'
        f'<rect x="{-MARGIN}" width="{width}" height="{top}" fill="#fff"/>'
        f"{''.join(drawn)}</svg>"
    )
    return Picture(title, Path("profile.svg"), "", content.encode(), chart=True)


def _legend(names: Sequence[str]) -> str:
    step = WIDTH / max(1, len(names))
    return "".join(
        f'<rect x="{number * step:g}" y="{MARGIN}" width="{BAR}" height="{BAR}" fill="{FILLS[number]}"/>'
        + _text(number * step + BAR + 6, MARGIN + BAR - 2, name, FONT)
        for number, name in enumerate(names)
    )


def _row(top: int, row: Row, kinds: Sequence[str], most: float) -> str:
    label, ms, words = row
    drawn, left = _text(0, top + FONT, label, FONT) + _text(80, top + FONT, words, SMALL), 0.0
    for kind, fill in zip(kinds, FILLS, strict=False):
        length = (WIDTH - NUMBER) * ms.get(kind, 0.0) / most
        drawn += (
            f'<rect x="{left:.1f}" y="{top + FONT + 6}" width="{length:.1f}" height="{BAR}" fill="{fill}"/>'
        )
        left += length
    return drawn + _text(left + 8, top + FONT + 6 + BAR - 2, f"{three_digits(sum(ms.values()))} ms", FONT)


def _text(left: float, base: float, words: str, size: int, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{left:.1f}" y="{base:g}" font-size="{size}"{weight}>{html.escape(words)}</text>'
