"""One report, several renderings."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from rich.console import Console

from morvit_deploy.bars import bars
from morvit_deploy.report import Picture, Report, Table, count, numbered, share, size

TABLE = Table(
    "Gaps [1]", ("name", "max |Δ|"), [("a|b", "1e-9"), ("<b> & [red]c", "2")], numeric=(1,), caption="two"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (count(2_883_186_432), "2.883 G"),
        (count(22_784_498), "22.78 M"),
        (count(1500), "1.5 k"),
        (count(999), "999"),
        (count(0), "0"),
        (size(91_138_272), "91.14 MB"),
        (size(21_790), "21.8 kB"),
        (share(0.985), "98.50 %"),
        (share(1.0), "100.00 %"),
        (share(0.999999), "99.99 %"),
        (share(0.0), "0.00 %"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text.replace("\u00a0", " ").replace("\u202f", " ") == expected


def test_a_terminal_shows_cells_as_they_are() -> None:
    text = StringIO()
    Report("R", [TABLE]).show(Console(file=text, width=120))
    for words in ("Gaps", "a|b", "<b> & [red]c", "two"):
        assert words in text.getvalue()


def test_markdown_escapes_columns() -> None:
    text = Report("R", [TABLE]).markdown()
    assert "| a\\|b | 1e-9 |" in text
    assert "| --- | ---: |" in text
    assert text.startswith("# R\n")


def test_html_is_one_page_that_escapes_and_refers_to_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "map.png")
    page = Report("R & co", [TABLE, Picture("Map", tmp_path / "map.png", "depths")]).html()
    assert "&lt;b&gt; &amp; [red]c" in page and "<b>" not in page
    assert "R &amp; co" in page
    assert "data:image/png;base64," in page
    assert "http" not in page and str(tmp_path) not in page


def test_markdown_links_the_picture_by_name(tmp_path: Path) -> None:
    text = Picture("Map", tmp_path / "map.png").markdown()
    assert "![Map](map.png)" in text and str(tmp_path) not in text


def test_a_notebook_gets_a_part_in_its_own_colours(tmp_path: Path) -> None:
    report = Report("R", [Table("T", ("a",), [("<1>",)]), Picture("P", Path("p.png"), content=b"bytes")])
    part = report.notebook()
    assert part.startswith("<div class=morvit><style>") and part.endswith("</div>")
    assert "&lt;1&gt;" in part and "base64,Ynl0ZXM=" in part
    assert "<html" not in part and "<body" not in part and "http" not in part
    for page in (part, report.html()):
        own = re.search(r"(?:background(?!:Canvas\})|[;{]color):", page)  # Canvas is light or dark itself
        assert not own, "light and dark come from the page"
    rules = re.search(r"<style>(.*?)</style>", part)
    assert rules is not None
    selectors = [one for rule in re.findall(r"([^{}]+){", rules.group(1)) for one in rule.split(",")]
    assert all(one.startswith(".morvit ") for one in selectors), "nothing else on the page is changed"


SHOWN = Report(
    "Result of a/b",
    [
        TABLE,
        Picture("Front", Path("front.png"), "it", content=b"bytes", chart=True),
        Table(
            "Long",
            ("what", "why", "bar"),
            [("a", "a text that is longer than four words", "██"), ("b", "", "█")],
        ),
        Picture("Map", Path("map.png"), content=b"bytes"),
    ],
    "It is 1.5 ms faster.",
)


def test_a_page_begins_with_the_result_and_its_picture() -> None:
    page = SHOWN.html()
    order = [
        "<h1>",
        "It is 1.5\u00a0ms faster.",
        "Front</h2>",
        "Contents",
        "Gaps [1]</h2>",
        "Long</h2>",
        "Map</h2>",
    ]
    places = [page.index(words) for words in order]
    assert places == sorted(places) and all(page.count(words) == 1 for words in order)


def test_contents_link_to_every_other_part() -> None:
    page = SHOWN.html()
    links = re.findall(r"<a href='#(\w+)'>(.*?)</a>", page)
    assert [title for _, title in links] == ["Gaps [1]", "Long", "Map"]
    for name, title in links:
        assert f"<section id={name}><h2>{title}</h2>" in page
    assert "<nav>" not in Report("R", [TABLE]).html(), "one part is found without"


def test_a_phone_scrolls_tables_and_pictures_and_not_the_page() -> None:
    page = SHOWN.html()
    wide = page.count("<table>") + page.count("<img")
    assert page.count("<div class=scroll><table>") + page.count("<div class=scroll><img") == wide == 4
    assert ".scroll{overflow-x:auto}" in page and "max-width:30rem" in page
    assert "<td class=text>a text" in page and "<td class=bar>██" in page and "<td class=n>1e-9" in page
    assert "Result of a/<wbr>b" in page, "a path may break"


def test_a_dark_page_inverts_charts_and_no_photograph() -> None:
    page = SHOWN.html()
    assert "prefers-color-scheme:dark" in page and '<img class=chart alt="Front"' in page
    assert '<img alt="Map"' in page and page.count("class=chart") == 1
    assert "prefers-color-scheme" not in SHOWN.notebook(), "a notebook has its own theme"


def test_the_result_comes_first_everywhere() -> None:
    text = StringIO()
    SHOWN.show(Console(file=text, width=80))
    assert text.getvalue().lstrip().startswith("It is 1.5 ms faster.")
    assert SHOWN.markdown().startswith("# Result of a/b\n\nIt is 1.5 ms faster.\n\n### Gaps")
    assert "<p class=result>It is" in SHOWN.notebook()


def test_bars_are_a_picture_of_a_page_and_of_no_terminal() -> None:
    picture = bars("Time", [("a & b", 2.0, "2 ms"), ("c", 4.0, "4 ms")])
    assert picture is not None and picture.content is not None
    drawn = ElementTree.fromstring(picture.content)
    names = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert names == ["a & b", "2 ms", "c", "4 ms"]
    widths = [float(one.get("width", 0)) for one in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[2] == pytest.approx(2 * widths[1]) and widths[2] <= widths[0]
    report = Report("R", [TABLE], "done", picture)
    assert '<svg class=chart role=img aria-label="Time" viewBox=' in report.html(), "its text can be searched"
    text = StringIO()
    report.show(Console(file=text, width=80))
    assert "bars.svg" not in text.getvalue() + report.markdown()


@pytest.mark.parametrize("rows", [[], [("one", 1.0, "1")], [("a", 0.0, "0"), ("b", 0.0, "0")]], ids=len)
def test_no_bars_without_a_comparison(rows: list[tuple[str, float, str]]) -> None:
    assert bars("T", rows) is None


def test_a_number_of_things() -> None:
    assert [numbered(n, "bucket") for n in (1, 0, 2, 1200)] == [
        "1 bucket",
        "0 buckets",
        "2 buckets",
        "1,200 buckets",
    ]


def test_html_keeps_a_number_and_its_unit_together() -> None:
    page = Report(
        "r", [Table("t", ("what", "cost"), [("latency", "1.5 ms"), ("work", "26.18 M of 4")])]
    ).html()
    assert "1.5\u00a0ms" in page and "26.18\u00a0M of 4" in page


def test_a_picture_of_pages_is_neither_printed_nor_linked() -> None:
    drawn = Picture("Map", Path("map.png"), content=b"bytes", page_only=True)
    report = Report("R", [drawn, Table("T", ("a",), [("1",)])])
    assert "Map" not in report.markdown() and "Map</h2>" in report.html()
    console = Console(record=True, width=60, file=StringIO())
    report.show(console)
    assert "map.png" not in console.export_text()
