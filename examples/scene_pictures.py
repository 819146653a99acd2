"""Scenes of held-out digits as PNG files: `python examples/scene_pictures.py --out examples/scenes-test`.

labels.csv has a third column, the number of digits. There are as many pictures of each number as `scenes.draw` gives
on average.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import digits
import pictures
import scenes
import torch
from torch import Tensor

COUNT = 200
SEED = 2026


def main() -> None:
    """Draw pictures of test digits and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    _, source = digits.load_sources()
    generator = torch.Generator().manual_seed(given.seed)
    objects = usual_objects(given.count)[torch.randperm(given.count, generator=generator)]
    batches = [scenes.draw(source, len(part), generator, part) for part in objects.split(pictures.CHUNK)]
    pictures.write(batches, given.out, {"objects": objects})
    print(f"{given.count} pictures in {given.out}")


def usual_objects(count: int) -> Tensor:
    """Numbers of digits (count,), ascending: n digits in proportion to 1 / n, to the nearest picture."""
    likely = (1 / torch.arange(1.0, scenes.MOST + 1, dtype=torch.float64)).cumsum(dim=0)
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return 1 + torch.searchsorted(likely / likely[-1], middles)


if __name__ == "__main__":
    main()
