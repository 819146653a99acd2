"""The part of a bundle's manifest that the agent needs, as plain JSON; and the check of the bundle's files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from morvit_deploy.agent.core.faults import Refused

RECIPE, PIXELS, EXPECTED = "recipe.json", "pixels.npy", "expected.npz"


@dataclass(frozen=True)
class Recipe:
    """One bundle on the device: its target, ports and files by name inside its folder."""

    name: str  # as the user called the bundle, for messages
    target: str
    dispatch: str
    batch: int | str  # images a run, or "dynamic"
    input: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    buckets: tuple[str, ...]
    carried: tuple[str, ...]
    graphs: dict[str, str]  # part of the bundle to its file
    alone: dict[str, str]  # bucket to the file of its graph alone; empty for one bucket
    files: dict[str, tuple[int, str]]  # name to bytes and sha256
    written_with: dict[str, str]
    more: dict[str, Any] = field(default_factory=dict)  # read by the target's runner only

    @staticmethod
    def of(folder: Path) -> Recipe:
        """Read the recipe of a bundle's folder without checking the files."""
        return Recipe(**json.loads((folder / RECIPE).read_text(encoding="utf-8")))

    def to_json(self) -> str:
        """The text of `recipe.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)


def read_recipe(folder: Path) -> Recipe:
    """Read a recipe and check every file that it lists; Refused names the one that differs."""
    recipe = Recipe.of(folder)
    for name, (size, digest) in recipe.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size or sha256_of(path) != digest:
            raise Refused(f"{name} of {recipe.name} did not arrive as it was sent; repeat the measurement")
    return recipe


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()
