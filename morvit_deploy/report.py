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


NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'  # of a drawing in a file of its own
BAR = "█"
WORDS = 24  # characters: a column of longer texts gets room on a phone, and the table scrolls


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
        kinds = [self._kind(column) for column in range(len(self.columns))]

        def cells(tag: str, row: tuple[str, ...]) -> str:
            return "".join(
                f"<{tag}{f' class={kind}' if kind else ''}>{html.escape(held(cell))}</{tag}>"
                for kind, cell in zip(kinds, row, strict=True)
            )

        head = f"<tr>{cells('th', self.columns)}</tr>"  # cells keep numbers with their units
        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        table = f"<div class=scroll><table><thead>{head}</thead><tbody>{body}</tbody></table></div>"
        return f"{_heading(self.title)}{table}{_caption(self.caption)}"

    def _kind(self, column: int) -> str:
        """How a page shows a column: numbers, bars, text that needs room, or "" for a few words."""
        if column in self.numeric:
            return "n"
        cells = [row[column] for row in self.rows]
        if any(cells) and all(set(cell) <= {BAR} for cell in cells):
            return "bar"
        return "text" if max(map(len, cells), default=0) > WORDS else ""


@dataclass(frozen=True)
class Picture:
    """An image to embed: a file, or `content` that would be written to one."""

    title: str
    path: Path
    caption: str = ""
    content: bytes | None = field(default=None, repr=False)
    chart: bool = False  # dark lines on white, which a dark page may invert; no photograph
    page_only: bool = False  # no file has it: a terminal and Markdown leave it out

    def markdown(self) -> str:
        """A link to the file beside the report."""
        return f"### {self.title}\n\n![{self.title}]({self.path.name})\n" + (
            f"\n{self.caption}\n" if self.caption else ""
        )

    def html(self) -> str:
        """The picture itself, so that the page is one file."""
        content = self.content or self.path.read_bytes()
        if self.path.suffix == ".svg":
            return f"{_heading(self.title)}<div class=scroll>{self._drawing(content)}</div>{_caption(self.caption)}"
        data = base64.b64encode(content).decode()
        source = f"data:image/{self.path.suffix.lstrip('.')};base64,{data}"
        kind = " class=chart" if self.chart else ""
        image = f'<img{kind} alt="{html.escape(self.title)}" src="{source}">'
        return f"{_heading(self.title)}<div class=scroll>{image}</div>{_caption(self.caption)}"

    def _drawing(self, content: bytes) -> str:
        """An SVG as a part of the page, whose text can be searched and selected."""
        kind = "class=chart " if self.chart else ""
        drawing = content.decode()
        opening = f'<svg {kind}role=img aria-label="{html.escape(self.title)}" '
        inline = drawing[drawing.index("<svg ") :].replace(NAMESPACE, "", 1)  # HTML knows what svg is
        return inline.replace("<svg ", opening, 1)


@dataclass
class Report:
    """The result in a sentence, a picture of it if there is one, and tables: a title and its parts, in order.

    `picture` is for pages only; without it, a page begins with the first picture of `parts`.
    """

    title: str
    parts: list[Table | Picture] = field(default_factory=list)
    result: str = ""
    picture: Picture | None = None

    def show(self, console: Console) -> None:
        """Print the result and the tables; pictures are named by path."""
        if self.result:
            print_lines(console, ["", *wrapped(self.result, console.width)])
        for part in self.parts:
            if isinstance(part, Table):
                part.show(console)
            elif not part.page_only:
                print_lines(console, ["", f"{part.title}: {part.path}"])

    def markdown(self) -> str:
        """The whole report."""
        result = f"{self.result}\n\n" if self.result else ""
        return f"# {self.title}\n\n{result}" + "\n".join(
            part.markdown() for part in self.parts if isinstance(part, Table) or not part.page_only
        )

    def html(self) -> str:
        """The whole report as one page without outside references: result, first picture, contents, the rest."""
        first = self.picture or next((part for part in self.parts if isinstance(part, Picture)), None)
        others = [part for part in self.parts if part is not first]
        opening = "" if first is None else _section(first, 0)
        body = "\n".join(_section(part, number) for number, part in enumerate(others, start=1))
        return (
            "<!doctype html><html lang=en><meta charset=utf-8>"
            "<meta name=viewport content='width=device-width,initial-scale=1'>"
            f"<title>{html.escape(self.title)}</title><style>{_PAGE}{_TABLES}</style>"
            f"<body class=morvit><h1>{_breakable(self.title)}</h1>{self._result()}{opening}{_contents(others)}{body}"
            "</body></html>\n"
        )

    def notebook(self) -> str:
        """The whole report as a part of a page, in the page's own colours: light or dark."""
        opening = "" if self.picture is None else self.picture.html()
        body = "\n".join(part.html() for part in self.parts)
        return f"<div class=morvit><style>{_NOTEBOOK}{_TABLES}</style>{self._result()}{opening}{body}</div>"

    def _result(self) -> str:
        return f"<p class=result>{html.escape(held(self.result))}</p>" if self.result else ""


class Shown(ABC):
    """A result that a notebook shows as its report."""

    @abstractmethod
    def report(self) -> Report:
        """Tables and pictures of all that was found."""

    def _repr_html_(self) -> str:
        return self.report().notebook()


def _section(part: Table | Picture, number: int) -> str:
    return f"<section id=s{number}>{part.html()}</section>"


def _contents(parts: Sequence[Table | Picture]) -> str:
    """Links to the parts; none where there is nothing to find."""
    if len(parts) < 2:
        return ""
    links = "".join(
        f"<li><a href='#s{number}'>{html.escape(part.title)}</a></li>"
        for number, part in enumerate(parts, start=1)
    )
    return f"<nav><h2>Contents</h2><ol>{links}</ol></nav>"


def _heading(title: str) -> str:
    return f"<h2>{_breakable(title)}</h2>"


def _breakable(title: str) -> str:
    """A title whose paths may break after a slash: on a phone they are longer than a line."""
    return html.escape(title).replace("/", "/<wbr>")


def _caption(text: str) -> str:
    return f"<p>{html.escape(held(text))}</p>" if text else ""


# A dark page inverts charts, which are dark lines on white, and leaves photographs as they are.
_PAGE = (
    ":root{color-scheme:light dark;background:Canvas}"
    "body.morvit{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem}"
    ".morvit h1{font-size:1.6rem;line-height:1.25}.morvit h2{font-size:1.2rem;margin:2rem 0 .5rem}"
    ".morvit nav ol{margin:0;padding-left:1.5rem;columns:2 16rem}"
    "@media(max-width:30rem){body.morvit{font-size:15px;margin:1rem auto}.morvit h1{font-size:1.3rem}"
    # on a phone their text stays readable, and they scroll
    ".morvit .scroll img[src*='image/png'],.morvit .scroll svg[width='640']{width:34rem;max-width:none}}"
    # blended, their ground is the page's own
    "@media(prefers-color-scheme:dark){.morvit .chart{filter:invert(1) hue-rotate(180deg);mix-blend-mode:screen}}"
    "@media print{:root{color-scheme:light}.morvit nav{display:none}.morvit .scroll{overflow:visible}"
    ".morvit .chart{filter:none;mix-blend-mode:normal}"
    ".morvit tr,.morvit svg,.morvit img{break-inside:avoid}.morvit h2{break-after:avoid}"
    ".morvit table{font-size:.75rem}}"
)
_NOTEBOOK = (
    ".morvit h2{font-size:1.05em;margin:1em 0 .3em}.morvit img,.morvit svg{max-width:45rem;width:100%}"
)
_TABLES = (  # no colors but grays that show on white and on black; a wide table scrolls by itself, not the page
    ".morvit .scroll{overflow-x:auto}.morvit table{border-collapse:collapse}"
    ".morvit th,.morvit td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8886;text-align:left;"
    "vertical-align:top}"
    ".morvit .n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".morvit .text{min-width:11rem}.morvit .bar{font-size:.4em;vertical-align:middle;white-space:nowrap}"
    ".morvit img,.morvit svg{max-width:100%;height:auto}.morvit p{opacity:.75;overflow-wrap:anywhere}"
    ".morvit .result{opacity:1;font-size:1.1em}"
)


def count(number: float) -> str:
    """2883186432 -> '2.883 G'; 22784498 -> '22.78 M'."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.4g} {unit}"
    return f"{number:g}"


def cost_in(value: float, unit: str) -> str:
    """A cost in "MACs" or "ms", with its unit."""
    return f"{count(value)}MACs" if unit == "MACs" else f"{value:#.3g} ms"


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
