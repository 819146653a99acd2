"""The test pictures as PNG files with labels.csv: `python examples/pictures.py --out examples/digits-test`."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import digits
import numpy as np
import torch
from PIL import Image
from torch import Tensor

COUNT = 200
SEED = 2025


def main() -> None:
    """Draw COUNT pictures of test digits, as many of each class, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out
    _, source = digits.load_sources()
    batch = digits.draw(source, even_picks(source.labels, COUNT), torch.Generator().manual_seed(SEED))
    write(batch, folder)
    print(f"{COUNT} pictures in {folder}")


def even_picks(labels: Tensor, count: int) -> Tensor:
    """`count` source digits (count,), the classes 0 … 9 in turn."""
    of_class = [(labels == c).nonzero()[:, 0] for c in range(10)]
    return torch.stack([of_class[i % 10][i // 10] for i in range(count)])


def write(batch: digits.Batch, folder: Path) -> None:
    """Write NNN.png for each picture and labels.csv (file,label)."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:03d}.png" for i in range(len(batch.labels))]
    pixels = (batch.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)  # (batch, h, w, 3)
    for name, picture in zip(names, pixels, strict=True):
        Image.fromarray(picture.contiguous().numpy()).save(folder / name, optimize=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "label"])
        table.writerows(zip(names, batch.labels.tolist(), strict=True))


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, h, w) in [0, 1] and labels (n,) of a folder that `write` wrote."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = np.stack([np.asarray(Image.open(folder / row["file"]).convert("RGB")) for row in rows])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return images, torch.tensor([int(row["label"]) for row in rows])


if __name__ == "__main__":
    main()
