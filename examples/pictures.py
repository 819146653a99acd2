"""Pictures of held-out digits as PNG files with labels.csv: `python examples/pictures.py --out examples/digits-test`.

To calibrate and to judge on different digits: `--half first` and `--half second`, with `--count` and `--seed`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import digits
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from morvit_deploy.files import new_folder

COUNT = 200
SEED = 2025
CHUNK = 500  # pictures drawn at a time


class Drawn(Protocol):
    """Pictures (batch, 3, h, w) in [0, 1] and their labels (batch,)."""

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...


def main() -> None:
    """Draw pictures of test digits, as many of each class, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--half", choices=("first", "second"), help="only this half of the held-out digits")
    given = parser.parse_args()
    _, source = digits.load_sources()
    generator = torch.Generator().manual_seed(given.seed)
    picks = even_picks(half_of(source, given.half).labels, given.count)
    batches = [digits.draw(half_of(source, given.half), part, generator) for part in picks.split(CHUNK)]
    write(batches, given.out)
    print(f"{given.count} pictures in {given.out}")


def half_of(source: digits.Source, half: str | None) -> digits.Source:
    """Every other held-out digit, or all of them."""
    if half is None:
        return source
    kept = slice(int(half == "second"), None, 2)
    return digits.Source(source.ink[kept], source.labels[kept])


def even_picks(labels: Tensor, count: int) -> Tensor:
    """`count` source digits (count,), the classes 0 … 9 in turn, each class's digits again when they run out."""
    of_class = [(labels == c).nonzero()[:, 0] for c in range(10)]
    return torch.stack([of_class[i % 10][i // 10 % len(of_class[i % 10])] for i in range(count)])


def write(batches: Sequence[Drawn], folder: Path, columns: Mapping[str, Tensor] | None = None) -> None:
    """Write NNN.png for each picture and labels.csv (file,label) to a new or empty folder.

    `columns` are further columns of labels.csv, (pictures,) each.
    """
    is_empty = folder.is_dir() and not any(folder.iterdir())
    with new_folder(folder, marker="labels.csv", force=is_empty) as partial:
        _write(batches, partial, columns or {})


def _write(batches: Sequence[Drawn], folder: Path, columns: Mapping[str, Tensor]) -> None:
    labels = torch.cat([batch.labels for batch in batches]).tolist()
    width = max(3, len(str(len(labels) - 1)))
    names = [f"{i:0{width}d}.png" for i in range(len(labels))]
    pictures = (picture for batch in batches for picture in _pixels(batch))
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture.contiguous().numpy()).save(folder / name, optimize=True)
    more = [column.tolist() for column in columns.values()]
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "label", *columns])
        table.writerows(zip(names, labels, *more, strict=True))


def _pixels(batch: Drawn) -> Tensor:
    """uint8 (batch, height, width, 3)."""
    return (batch.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, h, w) in [0, 1] and labels (n,) of a folder that `write` wrote."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = np.stack([np.asarray(Image.open(folder / row["file"]).convert("RGB")) for row in rows])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return images, torch.tensor([int(row["label"]) for row in rows])


if __name__ == "__main__":
    main()
