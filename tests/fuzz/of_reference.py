"""Files of `--reference`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from foreign_checkpoints import SAY
from hypothesis import strategies as st
from mutations import npz_of
from promise import Case, Ended, Kind

FILE = "reference.npz"
WORDS = ("convert", "model.pth", "--explain", *SAY, "--reference", FILE)
LARGEST = 2e-2  # of the range of the logits: what float16 may be off by


def cases(seeds: Path) -> st.SearchStrategy[Case]:
    with np.load(seeds / FILE) as file:
        arrays = {name: file[name] for name in file.files}
    return npz_of(arrays).map(lambda content: Case(WORDS, {FILE: content}))


def wrong(folder: Path, case: Case, ended: Ended, seeds: Path) -> str:
    """Accepted logits are those of the same images in the sound file."""
    with np.load(folder / FILE) as file, np.load(seeds / FILE) as sound:
        own = {
            image.tobytes(): logits for image, logits in zip(sound["images"], sound["logits"], strict=True)
        }
        pairs = [
            (own[image.tobytes()], logits)
            for image, logits in zip(file["images"], file["logits"], strict=True)
            if image.tobytes() in own
        ]
        worst = max((np.abs(a - b.astype(np.float64)).max() for a, b in pairs), default=0.0)
        allowed = LARGEST * np.ptp(sound["logits"])
    return "" if worst <= allowed else f"accepted logits that differ by {worst:.3g}"


KIND = Kind("reference", 500, ("model.pth", FILE), cases, wrong, sound=WORDS)
