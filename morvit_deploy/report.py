"""One report, several renderings: the same rows on a terminal, as Markdown, as an HTML page and in a notebook."""

from __future__ import annotations

import base64
import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from morvit_deploy.layout import held, print_lines, show_in, table_lines, wrapped

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Table:
    """Rows of text under columns, with a heading and perhaps a caption."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric: tuple[int, ...] = ()  # columns to align right
    caption: str = ""

    def show(self, console: Console) -> None:
        """Print heading, rows and caption to a terminal or a pipe; `table_lines` says how they are laid out."""
        width = console.width - 1  # rows start after a free column
        columns, *rows = [
            [show_in(cell, console.encoding) for cell in row] for row in (self.columns, *self.rows)
        ]
        print_lines(console, ["", *wrapped(self.title, console.width)], "bold")
        print_lines(console, [f" {line}" for line in table_lines(columns, rows, self.numeric, width)])
        if self.caption:
            print_lines(console, [f" {line}" for line in wrapped(self.caption, width)], "dim")

    def markdown(self) -> str:
        """A GitHub table."""
        rules = ["---:" if i in self.numeric else "---" for i in range(len(self.columns))]
        lines = [self.columns, tuple(rules), *self.rows]
        body = "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )
        return f"### {self.title}\n\n{body}\n" + (f"\n{self.caption}\n" if self.caption else "")

    def html(self) -> str:
        """A table element with its heading."""

        def cells(tag: str, row: tuple[str, ...]) -> str:
            return "".join(
                f"<{tag}{' class=n' if i in self.numeric else ''}>{html.escape(held(cell))}</{tag}>"
                for i, cell in enumerate(row)
            )

        head = f"<tr>{cells('th', self.columns)}</tr>"
        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        caption = f"<p>{html.escape(self.caption)}</p>" if self.caption else ""
        return f"<h2>{html.escape(self.title)}</h2><table>{head}{body}</table>{caption}"


@dataclass(frozen=True)
class Picture:
    """An image to embed: a file, or `content` that would be written to one."""

    title: str
    path: Path
    caption: str = ""
    content: bytes | None = field(default=None, repr=False)

    def markdown(self) -> str:
        """A link to the file beside the report."""
        return f"### {self.title}\n\n![{self.title}]({self.path.name})\n" + (
            f"\n{self.caption}\n" if self.caption else ""
        )

    def html(self) -> str:
        """The picture itself, so that the page is one file."""
        data = base64.b64encode(self.content or self.path.read_bytes()).decode()
        source = f"data:image/{self.path.suffix.lstrip('.')};base64,{data}"
        return (
            f"<h2>{html.escape(self.title)}</h2><img alt='{html.escape(self.title)}' src='{source}'>"
            f"<p>{html.escape(self.caption)}</p>"
        )


@dataclass
class Report:
    """A title and its parts, in order."""

    title: str
    parts: list[Table | Picture] = field(default_factory=list)

    def show(self, console: Console) -> None:
        """Print the tables; pictures are named by path."""
        for part in self.parts:
            if isinstance(part, Table):
                part.show(console)
            else:
                print_lines(console, ["", f"{part.title}: {part.path}"])

    def markdown(self) -> str:
        """The whole report."""
        return f"# {self.title}\n\n" + "\n".join(part.markdown() for part in self.parts)

    def html(self) -> str:
        """The whole report as one page without outside references."""
        body = "\n".join(part.html() for part in self.parts)
        return (
            "<!doctype html><html lang=en><meta charset=utf-8>"
            "<meta name=viewport content='width=device-width,initial-scale=1'>"
            f"<title>{html.escape(self.title)}</title><style>{_PAGE}{_TABLES}</style>"
            f"<body class=morvit><h1>{html.escape(self.title)}</h1>{body}</body></html>\n"
        )

    def notebook(self) -> str:
        """The whole report as a part of a page, in the page's own colours: light or dark."""
        body = "\n".join(part.html() for part in self.parts)
        return f"<div class=morvit><style>{_NOTEBOOK}{_TABLES}</style>{body}</div>"


class Shown(ABC):
    """A result that a notebook shows as its report."""

    @abstractmethod
    def report(self) -> Report:
        """Tables and pictures of all that was found."""

    def _repr_html_(self) -> str:
        return self.report().notebook()


_PAGE = (
    ":root{color-scheme:light dark}"
    ".morvit{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
)
_NOTEBOOK = ".morvit h2{font-size:1.05em;margin:1em 0 .3em}.morvit img{max-width:45rem;width:100%}"
_TABLES = (  # no colors but grays that show on white and on black; on a phone a wide table scrolls by itself
    ".morvit table{border-collapse:collapse;display:block;overflow-x:auto}"
    ".morvit th,.morvit td{padding:.3rem .8rem;border-bottom:1px solid #8886;text-align:left}"
    ".morvit .n{text-align:right;font-variant-numeric:tabular-nums}.morvit img{max-width:100%}"
    ".morvit p{opacity:.75}"
)


def count(number: float) -> str:
    """2883186432 -> '2.883 G'; 22784498 -> '22.78 M'."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.4g} {unit}"
    return f"{number:g}"


def numbered(number: int, what: str) -> str:
    """1 bucket; 3 buckets."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def size(number: float) -> str:
    """Bytes as kB or MB (powers of ten)."""
    return f"{number / 1e6:.2f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"


def share(number: float) -> str:
    """0.985 -> '98.50 %'; a share that is not quite one never reads as 100 %."""
    return f"{min(number, 0.9999) if number < 1 else number:.2%}".replace("%", " %")


def three_digits(number: float) -> str:
    """Three digits: 0.664, 20.7, 1234, -0.0120."""
    return f"{number:.0f}" if abs(number) >= 100 or number == 0 else f"{number:#.3g}"


def spread(numbers: Sequence[float]) -> str:
    """Least and most: 20.1–22.4; with a negative one -0.01 to 0.02."""
    least, most = min(numbers), max(numbers)
    return f"{three_digits(least)}{' to ' if least < 0 else '–'}{three_digits(most)}"
