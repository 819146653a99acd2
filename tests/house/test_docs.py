"""What the pages say is true: links, paths, commands and options exist, quoted messages are the tool's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from spelling import SPAN, british
from typer.main import get_command

from morvit_deploy.cli import app
from morvit_deploy.exporters.targets import targets

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
README = ROOT / "README.md"
MOST_WORDS = 700  # of the README: prose, tables and code blocks, as `wc -w` counts
FIRST_SCREEN = 30  # lines
WIDEST_CODE = 80  # columns that a phone shows
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*(?:\.(?:py|sh|mjs|swift|md|toml)|/)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")  # exporters/NAME/run.py
WRITTEN = {
    "build.py",
    "bench.py",
    "MoRViTKit/",
    "devices.toml",
}  # in a bundle or a benchmark project, or by users
FROM = (".", "docs", "morvit_deploy")  # a path starts at the root, beside its page or in the package
OTHER_PROGRAMS = ("mypy ", "pip ", "pytest ")
SEEN = re.compile(r"^(?:You see|\|) `([^`]+)`", re.MULTILINE)  # of the how-to page

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", text_of(page))


def paths(page: Path) -> set[str]:
    """Files and folders in a page's code spans, of blocks of code none."""
    words = {word for span in SPAN.findall(prose(page)) for word in span.split() if FILE.fullmatch(word)}
    return {
        word for word in words if not PLACEHOLDER.search(word) and not word.startswith("build/")
    } - WRITTEN


@cache
def anchors(page: Path) -> set[str]:
    """What links can point to in a page, as GitHub names its headings."""
    titles = HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(text_of(page)):
        if target.startswith("http"):
            continue
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


@by_page
def test_paths_exist(page: Path) -> None:
    places = [page.parent, *(ROOT / start for start in FROM)]
    missing = {word for word in paths(page) if not any((place / word).exists() for place in places)}
    assert not missing, f"{page.name} names {sorted(missing)}"


@by_page
def test_no_placeholder_is_left(page: Path) -> None:
    assert not re.search(r"@@|TODO|FIXME", text_of(page))


@by_page
def test_spelling_is_american(page: Path) -> None:
    found = british(prose(page))
    assert not found, f"{page.name} has {found}; the pages have American spelling"


@by_page
def test_code_fits_a_phone(page: Path) -> None:
    """What is typed or printed; Python has its own width."""
    blocks = [block for block in FENCE.findall(text_of(page)) if block.startswith("```\n")]
    lines = [line for block in blocks for line in block.splitlines()]
    assert not [line for line in lines if len(line) > WIDEST_CODE]


def commands() -> dict[str, Any]:
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return found


def lines_to_type(page: Path) -> Iterator[list[str]]:
    """The words of each `morvit-deploy …` of a page, in blocks and in spans, up to a redirection."""
    blocks = "\n".join(FENCE.findall(text_of(page))).replace("\\\n", " ")
    for line in [*blocks.splitlines(), *SPAN.findall(prose(page))]:
        words = (
            shlex.split(line.partition(" > ")[0], comments=True) if line.startswith("morvit-deploy ") else []
        )
        if words and not {"COMMAND", "--help"} & {*words}:
            yield words[1:]


@by_page
def test_command_lines_are_taken(page: Path) -> None:
    """Options, their values and targets are real; files need not exist."""
    for name, *words in lines_to_type(page):
        assert name in commands(), f"{page.name}: morvit-deploy {name}"
        try:
            context = commands()[name].make_context(name, [*words])
        except Exception as error:  # of click, or of typer's own copy
            pytest.fail(f"{page.name}: morvit-deploy {name} {shlex.join(words)}: {error!r} {error}")
        assert context.params.get("target", "onnx") in targets()


@by_page
def test_options_exist(page: Path) -> None:
    """Those that spans of code name, of a command or of a script in `examples/` or `benchmarks/`."""
    own = {option for c in commands().values() for p in c.params for option in (*p.opts, *p.secondary_opts)}
    scripts = [
        text_of(path) for folder in ("examples", "benchmarks") for path in (ROOT / folder).glob("*.py")
    ]
    known = {"--help", "--debug"} | own | {option for script in scripts for option in OPTION.findall(script)}
    spans = [span for span in SPAN.findall(prose(page)) if not span.startswith(OTHER_PROGRAMS)]
    named = {option for span in spans for option in OPTION.findall(span)}
    assert named <= known, f"{page.name} names {sorted(named - known)}"


def test_the_readme_names_every_command_and_only_real_options() -> None:
    text = text_of(README)
    for name in commands():
        assert f"| `{name}` |" in text
    options = {option for c in commands().values() for p in c.params for option in p.opts}
    for option in set(OPTION.findall(text)):
        assert option in options, option


def test_the_readme_is_short() -> None:
    assert len(text_of(README).split()) <= MOST_WORDS


def test_the_readme_says_first_what_was_run_where() -> None:
    first = text_of(README).splitlines()[:FIRST_SCREEN]
    for row in ("Linux CPU.*yes", "TensorRT-RTX.*not run", "GPU, Jetson.*not yet run", "iPhone.*not yet run"):
        assert any(re.search(row, line) for line in first), row


def test_quoted_messages_are_the_tools() -> None:
    """What the how-to page says one sees is in the source, whose strings run over several lines."""
    folders = [ROOT / "morvit_deploy", ROOT / "exporters", ROOT / "calibration"]
    sources = [text_of(path) for folder in folders for path in folder.rglob("*.py")]
    strings = re.sub(r'"\s+f?"', "", "\n".join(sources))
    quoted = SEEN.findall(text_of(ROOT / "docs" / "troubleshooting.md"))
    assert quoted
    assert not [message for message in quoted if message not in strings]
