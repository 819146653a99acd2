"""Results of which `report` makes a page. They may come from anywhere; the page runs and loads nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from mutations import held_at, json_of, places
from promise import OUT, Case, Ended, Kind

FILE = "result.json"
PAGE = f"{OUT}.html"
WORDS = ("report", FILE, "-o", PAGE)
PAYLOADS = (
    "<script>alert(1)</script>", "</title><script src=//x></script>", '"><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)>",
    "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "<svg xmlns='http://www.w3.org/2000/svg'><rect onclick='alert(1)'/></svg>",
    "<svg xmlns='http://www.w3.org/2000/svg'><rect fill='url(http://x/)'/></svg>",
    "<svg xmlns='http://www.w3.org/2000/svg'><a href='javascript:alert(1)'><text>x</text></a></svg>",
    "<svg xmlns='http://www.w3.org/2000/svg'><style>@import url(//x)</style></svg>",
    '<!DOCTYPE x [<!ENTITY a "aaaa">]><svg xmlns="http://www.w3.org/2000/svg"><text>&a;</text></svg>',
)  # fmt: skip  # a table
TEXTS = ("alt", "aria-label", "title")  # attributes that hold text
OWN_LINK = re.compile(r"#s\d+")  # to a part of the page
CARRIERS = re.compile(r"url\(|javascript:|https?:|^//", re.IGNORECASE)


@st.composite
def injected(draw: st.DrawFn, document: dict[str, Any]) -> bytes:
    """The document with one text replaced by what a page must not hold as it stands."""
    texts = [path for path in places(document) if isinstance(held_at(document, path), str)]
    *path, key = draw(st.sampled_from(texts))
    copy = json.loads(json.dumps(document))
    held_at(copy, tuple(path))[key] = draw(st.sampled_from(PAYLOADS))
    return json.dumps(copy).encode()


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    document = json.loads((seeds / FILE).read_text())
    return st.one_of(json_of(document), injected(document)).map(lambda text: Case(WORDS, {FILE: text}))


class _Reader(HTMLParser):
    """Collects what a page would run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "link", "form", "foreignobject", "base"):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if name in ("href", "xlink:href") and not OWN_LINK.fullmatch(value or ""):
                self.found.append(f"{tag} {name}={value}")
            if name.startswith("on") or (name not in TEXTS and CARRIERS.search(value or "")):
                self.found.append(f"{tag} {name}={value}")


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """The page has no program, no link and no address."""
    reader = _Reader()
    reader.feed((folder / PAGE).read_text(encoding="utf-8"))
    return f"the page holds {', '.join(reader.found)}" if reader.found else ""


KIND = Kind("result", 300, (FILE,), cases, wrong, outputs=(PAGE,), sound=WORDS)
