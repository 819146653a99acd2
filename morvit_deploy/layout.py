"""Text in a given width, on any console: no word is broken, and no number parted from its unit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2  # spaces between columns
RULE = "─"
FEW = 4  # rows: so few are easier to read as blocks than in two tables
SHORT = 24  # columns of a text that is not wrapped while there is room
LEAST_TEXT = 16  # columns that a text at the end of a row gets, however long its words
HELD = "\u00a0"  # a space at which no line may break; printed as a space
_UNITS = (
    "%|s|ms|µs|h|min|minutes|B|[kMGT]i?B|[kMG]|[kMG]?MACs?|GMAC/s|images/s|[kMG]?Hz|m?W|m?J|°C|dB|cores|bits?"
)
_UNIT = re.compile(rf"(?<=\d) (?=(?:{_UNITS})(?:/\w+)?(?![\w/]))")
# for a console that cannot show them
_STAND_INS = {
    "×": "x", "Δ": "d", "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "≤": "<=", "≥": ">=", "≈": "~",
    "±": "+-", "·": "-", "°": "deg ", "µ": "u", "█": "#", "─": "-", "│": "|", "’": "'",
    "‘": "'", "“": '"', "”": '"', "•": "-", "►": ">", "≠": "!=", "²": "2", "ℓ": "l",
}  # fmt: skip  # a list of signs


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int], width: int
) -> list[str]:
    """Rows under their columns, at most `width` wide; where they do not fit, two tables below one another, which
    both begin with the columns of text that the rows are told apart by, or else a block for each row.

    A last cell with a word too long for its column, such as a path, comes under its row. Only a single word longer
    than `width` makes a longer line. Columns `numeric` are aligned right.
    """
    by_column = list(zip(columns, *rows, strict=True))
    least = [max(len_of(piece) for cell in column for piece in pieces(cell)) for column in by_column]
    room = width - GAP * (len(columns) - 1)
    last = len(columns) - 1
    if sum(least) > room and last not in numeric:
        least[last] = min(least[last], max(room - sum(least[:last]), LEAST_TEXT))
    if sum(least) > room:
        parts = _parts(least, numeric, width)
        if len(parts) > 2 or len(rows) < FEW:
            return _blocks(columns, rows, width)
        return [line for part in parts for line in ("", *_chosen(part, columns, rows, numeric, width))][1:]
    most = [max(len_of(line) for cell in column for line in cell.split("\n")) for column in by_column]
    widths = _widened(least, most, room)
    lines = [*_row_lines(columns, widths, numeric), RULE * (sum(widths) + GAP * last)]
    for row in rows:
        if max(map(len_of, pieces(row[last]))) <= widths[last]:
            lines += _row_lines(row, widths, numeric)
        else:
            lines += _row_lines([*row[:last], ""], widths, numeric)
            lines += [" " * GAP + line for line in wrapped(row[last], width - GAP)]
    return lines


def show_in(text: str, encoding: str) -> str:
    """The text with stand-ins for what the encoding does not have: × as x, Δ as d, other signs as `?`."""
    return "".join(char if _has(encoding, char) else stand_in(char) for char in text)


def _has(encoding: str, char: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def stand_in(char: str) -> str:
    """ASCII for a sign."""
    if char in _STAND_INS:
        return _STAND_INS[char]
    bare = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return bare or "?"


def len_of(text: str) -> int:
    """Columns that the text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def held(text: str) -> str:
    """The text with a space that does not break between each number and its unit."""
    return _UNIT.sub(HELD, text)


def pieces(text: str) -> list[str]:
    """What no line may break: words, and numbers with their units. Spaces at the start stay with the first."""
    indent = len(text) - len(text.lstrip(" "))
    whole = HELD * indent + held(text[indent:])
    return [piece.replace(HELD, " ") for piece in re.split(r"[ \n]+", whole)]


def wrapped(text: str, width: int) -> list[str]:
    """The pieces of each line of a text in lines of at most `width`, where no piece is longer."""
    lines: list[str] = []
    for line in text.split("\n"):
        first, *others = pieces(line)
        lines.append(first)
        for piece in others:
            if len_of(lines[-1]) + 1 + len_of(piece) <= width:
                lines[-1] += " " + piece
            else:
                lines.append(piece)
    return lines


def _widened(least: list[int], most: list[int], room: int) -> list[int]:
    """Share the room: short columns get all they need, then always the column that lacks most."""
    widths = list(least)
    for i in sorted(range(len(most)), key=lambda i: most[i]):
        if most[i] <= SHORT and sum(widths) - widths[i] + most[i] <= room:
            widths[i] = most[i]
    for _ in range(room - sum(widths)):
        lacking = max(range(len(most)), key=lambda i: most[i] - widths[i])
        if widths[lacking] >= most[lacking]:
            break
        widths[lacking] += 1
    return widths


def _row_lines(row: Sequence[str], widths: list[int], numeric: Sequence[int]) -> list[str]:
    """The lines of one row, cells side by side."""
    cells = [wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        fills = [" " * (width - len_of(part)) for part, width in zip(parts, widths, strict=True)]
        padded = [f + p if i in numeric else p + f for i, (p, f) in enumerate(zip(parts, fills, strict=True))]
        lines.append((" " * GAP).join(padded).rstrip())
    return lines


def _parts(least: list[int], numeric: Sequence[int], width: int) -> list[list[int]]:
    """Columns of tables that fit; each begins with the leading columns of text. Many where nothing fits."""
    key = list(range(min(numeric, default=1) or 1))
    parts = [list(key)]
    for column in range(len(key), len(least)):
        wanted = [*parts[-1], column]
        if sum(least[i] + GAP for i in wanted) - GAP > width:
            parts.append([*key, column])
        else:
            parts[-1] = wanted
    fits = all(sum(least[i] + GAP for i in part) - GAP <= width for part in parts)
    return parts if fits else [[]] * len(least)


def _chosen(
    part: list[int],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    numeric: Sequence[int],
    width: int,
) -> list[str]:
    """The table of some of the columns."""
    right = [number for number, column in enumerate(part) if column in numeric]
    return table_lines([columns[i] for i in part], [[row[i] for i in part] for row in rows], right, width)


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Each row as a block: its first cell, and under it a line for each column that has a value."""
    if not columns[0]:  # a mark: it stands before what it marks
        columns = columns[1:]
        rows = [[f"{mark} {first}".lstrip(), *others] for mark, first, *others in rows]
    names = columns[1:]
    margin = GAP + max(map(len_of, names)) + GAP
    lines: list[str] = []
    for title, *values in rows:
        lines += ["", *wrapped(title, width)]
        for name, value in zip(names, values, strict=True):
            first, *more = wrapped(value, width - margin)
            if value:
                lines += [(" " * GAP + name).ljust(margin) + first, *(" " * margin + line for line in more)]
    return lines


def print_lines(console: Console, lines: Iterable[str], style: str = "") -> None:
    """Lines as they are: no markup, nothing wrapped, cut or coloured as code."""
    text = show_in("\n".join(lines), console.encoding)
    console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
