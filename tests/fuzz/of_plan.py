"""Plans. They are read as `export --plan` reads them; the export itself is no matter of input."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st
from mutations import is_read_as, json_of, numbers_as_floats, repeats_a_key
from promise import Case, Ended, Kind, called

from morvit_deploy.model.checkpoint import fingerprint
from morvit_deploy.model.config import load_config
from morvit_deploy.model.plan import read_plan

FILE = "plan.json"


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    document = json.loads((seeds / FILE).read_text())
    return json_of(document).map(lambda text: Case((), {FILE: text}))


def act(folder: Path, case: Case) -> Ended:
    checkpoint = folder / "checkpoint"
    return called(
        lambda: read_plan(folder / FILE, load_config(checkpoint), fingerprint(checkpoint)).to_json()
    )


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """Every field is read as it stands in the file."""
    text = (folder / FILE).read_bytes()
    if repeats_a_key(text):
        return "accepted a key that is there twice"
    read, stands = numbers_as_floats(ended.output), numbers_as_floats(text)
    differing = [
        name
        for name, value in stands.items()
        if name != "calibration" and not is_read_as(value, read.get(name))
    ]
    return f"read {', '.join(differing)} as something else" if differing else ""


KIND = Kind("plan", 1000, (FILE, "checkpoint"), cases, wrong, act)
