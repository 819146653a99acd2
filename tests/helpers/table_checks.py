"""What a table on a console must keep: whole words, numbers beside their units, lines within the width."""

from __future__ import annotations

import io
import re
from collections import Counter

from rich.console import Console

from morvit_deploy.report import Table

UNIT = re.compile(
    r"\d (?:%|ms|kB|MB|GB|MiB|GiB|[kMG]|[kMG]?MACs|GMAC/s|images/s|MHz|GHz|mW|W|mJ|J|°C|dB)(?![\w/])"
)


def rendered(table: Table, width: int, *, terminal: bool = False, encoding: str = "utf-8") -> str:
    """The table as a console of this width and encoding prints it; a sign that it lacks is an error."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="\n")
    table.show(Console(file=file, width=width, force_terminal=terminal, no_color=True))
    file.flush()
    return re.sub(r"\x1b\[[0-9;]*m", "", raw.getvalue().decode(encoding))


def problems(table: Table, width: int, *, terminal: bool = False) -> list[str]:
    """What is wrong with the table at this width, in words."""
    text = rendered(table, width, terminal=terminal)
    source = "\n".join(
        [table.title, table.caption, *table.columns, *(cell for row in table.rows for cell in row)]
    )
    source = source.replace("\u00a0", " ")
    known, shown = set(source.split()), {word for word in text.split() if set(word) != {"─"}}
    found = [f"broken word: {word}" for word in sorted(shown - known)]
    found += [f"lost: {word}" for word in sorted(known - shown - unused_columns(table))]
    wanted, kept = Counter(UNIT.findall(source)), Counter(UNIT.findall(text))
    found += [f"parted: {pair}" for pair, times in wanted.items() if kept[pair] < times]
    for line in text.splitlines():
        longest = max(map(len, line.split()), default=0)
        if len(line) > width and longest < width - 4:
            found.append(f"{len(line)} columns: {line}")
    return found


def unused_columns(table: Table) -> set[str]:
    """Words of headings that blocks leave out: of the first column, or behind a mark, and of empty ones."""
    first = table.columns[: 1 if table.columns[0] else 2]
    empty = [name for i, name in enumerate(table.columns) if not any(row[i] for row in table.rows)]
    return {word for name in (*first, *empty) for word in name.split()}
