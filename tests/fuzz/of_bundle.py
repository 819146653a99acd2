"""Bundles: edited manifests, damaged graphs and weights, files that are missing; answers of those that open."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from commands import run
from hypothesis import strategies as st
from mutations import bytes_of, json_of, repeats_a_key
from promise import Case, Ended, Kind

MANIFEST = "bundle/manifest.json"
FILES = ("bundle/model.onnx", "bundle/weights.bin")
WORDS = ("predict", "bundle", "pictures/000.png", "--logits", "--json")


@st.composite
def damaged(draw: st.DrawFn, seeds: Path) -> Case:
    name = draw(st.sampled_from((MANIFEST, MANIFEST, *FILES)))
    if name == MANIFEST:
        return Case(WORDS, {name: draw(json_of(json.loads((seeds / name).read_text())))})
    content = draw(st.one_of(st.none(), st.just(b""), bytes_of((seeds / name).read_bytes())))
    return Case(WORDS, {name: content})


def answered(output: str) -> Any:
    return json.loads(output)["predictions"][0]["logits"]


@cache
def sound(seeds: Path) -> Any:
    words = [str(seeds / word) if (seeds / word).exists() else word for word in WORDS]
    return answered(run(*words).stdout)


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """Unless the manifest asks for other preprocessing, the files are as they were and give the same logits."""
    text = (folder / MANIFEST).read_bytes()
    if repeats_a_key(text):
        return "accepted a key that is there twice"
    if not np.isfinite(answered(ended.output)).all():
        return "logits are not finite"
    for name in FILES:
        if (folder / name).read_bytes() != (seeds / name).read_bytes():
            return f"accepted another {name}"
    manifest, before = json.loads(text), json.loads((seeds / MANIFEST).read_bytes())
    same = manifest["preprocess"] != before["preprocess"] or answered(ended.output) == sound(seeds)
    return "" if same else "the same files give other logits"


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    return damaged(seeds)


KIND = Kind("bundle", 1000, ("bundle", "pictures"), cases, wrong, sound=WORDS)
