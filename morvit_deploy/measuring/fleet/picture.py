"""Bars of every bundle under each device, on one scale, as SVG. No torch."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from morvit_deploy.bars import BAR, FONT, MARGIN, NUMBER, ROW, WIDTH
from morvit_deploy.report import Picture, three_digits

HEAD = 30  # pixels of a device's name above its bars
FIRST, OTHERS = "#1f6fb4", "#8fa3b5"  # the first bundle is what the report is about

Group = tuple[str, Sequence[tuple[str, float]]]  # a device, and its bundles with ms


def grouped_bars(title: str, groups: Sequence[Group], first: str, caption: str = "") -> Picture | None:
    """A bar for each bundle of each device; None with less than two bars. `first` names the darker bundle."""
    values = [value for _, rows in groups for _, value in rows]
    if len(values) < 2 or max(values) <= 0:
        return None
    height = MARGIN + HEAD * len(groups) + ROW * len(values)
    drawn = "".join(_drawn(groups, first, max(values)))
    content = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui,sans-serif" font-size="{FONT}">'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{drawn}</svg>'
    )
    return Picture(title, Path("fleet.svg"), caption, content.encode(), chart=True)


def _drawn(groups: Sequence[Group], first: str, most: float) -> Iterator[str]:
    top = MARGIN / 2
    for device, rows in groups:
        yield f'<text x="0" y="{top + FONT + 6:g}" font-weight="bold">{html.escape(device)}</text>'
        top += HEAD
        for name, value in rows:
            length, base = (WIDTH - NUMBER) * value / most, top + FONT + 6
            yield (
                f'<text x="0" y="{top + FONT:g}">{html.escape(name)}</text>'
                f'<rect x="0" y="{base:g}" width="{length:.1f}" height="{BAR}" '
                f'fill="{FIRST if name == first else OTHERS}"/>'
                f'<text x="{length + 8:.1f}" y="{base + BAR - 2:g}">{three_digits(value)} ms</text>'
            )
            top += ROW
