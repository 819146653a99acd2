"""`config.json` of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st
from mutations import is_read_as, json_of, numbers_as_floats, repeats_a_key
from promise import Case, Ended, Kind

FILE = "checkpoint/config.json"
WORDS = ("inspect", "checkpoint", "--json")


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    document = json.loads((seeds / FILE).read_text())
    owning = document | {"thresholds": [0.1, 0.0, 0.2]}  # a checkpoint with thresholds of its own
    texts = st.sampled_from([document, owning]).flatmap(json_of)
    return texts.map(lambda text: Case(WORDS, {FILE: text}))


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """Every field is read as it stands in the file."""
    text = (folder / FILE).read_bytes()
    if repeats_a_key(text):
        return "accepted a key that is there twice"
    shown, stands = numbers_as_floats(ended.output)["config"], numbers_as_floats(text)
    differing = [name for name, value in stands.items() if not is_read_as(value, shown[name])]
    return f"read {', '.join(differing)} as something else" if differing else ""


KIND = Kind("config", 2400, ("checkpoint",), cases, wrong, sound=WORDS)
