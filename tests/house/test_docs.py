"""What the pages say exists: links lead somewhere, no placeholder is left, commands and options are real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import ROOT
from typer.main import get_command

from morvit_deploy.cli import app

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*(?:\.(?:py|sh|mjs|swift|md|toml)|/)")
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")  # exporters/NAME/run.py
WRITTEN = {"build.py", "bench.py", "MoRViTKit/"}  # in a bundle or a benchmark project
FROM = (".", "docs", "morvit_deploy")  # a path starts at the root, beside its page or in the package


def paths(page: Path) -> set[str]:
    """Files and folders in a page's code spans, of blocks of code none."""
    spans = SPAN.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    words = {word for span in spans for word in span.split() if FILE.fullmatch(word)}
    return {
        word for word in words if not PLACEHOLDER.search(word) and not word.startswith("build/")
    } - WRITTEN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    places = [page.parent, *(ROOT / start for start in FROM)]
    missing = {word for word in paths(page) if not any((place / word).exists() for place in places)}
    assert not missing, f"{page.name} names {sorted(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_placeholder_is_left(page: Path) -> None:
    assert not re.search(r"@@|TODO|FIXME", page.read_text(encoding="utf-8"))


def test_the_readme_names_every_command_and_only_real_options() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name in commands:
        assert f"| `{name}` |" in text
    options = {option for c in commands.values() for p in c.params for option in p.opts}
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)):
        assert option in options, option
