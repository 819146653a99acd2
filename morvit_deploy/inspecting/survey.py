"""A model's results on the images of a folder: classes and token depths, and their pictures. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.inspecting.degeneracy import Assessment, Depth
from morvit_deploy.model.config import Config

OVERVIEW = "overview.png"


@dataclass(frozen=True)
class Seen:
    """The reference's result for one image."""

    image: str
    label: int | None
    predicted: int
    mean_depth: float  # steps per patch token
    macs: int  # of a static graph that fits this image


@dataclass(frozen=True)
class Survey:
    """The reference's results on a folder of images."""

    images: tuple[Seen, ...]
    mean_tokens: tuple[float, ...]  # routed tokens that run each step
    histogram: tuple[float, ...]  # fraction of patch tokens at depth 0, 1, … num_steps
    assessment: Assessment | None  # None without routing
    pictures: tuple[str, ...] = ()

    @property
    def mean_depth(self) -> float:
        """Mean number of steps that a patch token runs."""
        return float(np.mean([seen.mean_depth for seen in self.images]))

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy; None unless every image has a label."""
        hits = [seen.predicted == seen.label for seen in self.images if seen.label is not None]
        return float(np.mean(hits)) if len(hits) == len(self.images) else None

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a report."""
        return {
            "count": len(self.images),
            "top1": self.top1,
            "mean_depth": self.mean_depth,
            "mean_macs": float(np.mean([seen.macs for seen in self.images])),
            "mean_tokens": list(self.mean_tokens),
            "histogram": list(self.histogram),
            "judgement": self.assessment and self.assessment.as_dict(),
            "pictures": list(self.pictures),
            "images": [asdict(seen) for seen in self.images],
        }


def draw_survey(
    folder: Path, survey: Survey, config: Config, pixels: Pixels, depth: Depth, count: int
) -> list[Path]:
    """Write the overview and the heat maps of the first `count` images; returns their paths.

    pixels uint8 (m, h, w, 3) are those of the first m images, m ≥ count; depth (n, N) is of all images.
    """
    from morvit_deploy.inspecting.depth_maps import draw_all, draw_overview  # loads matplotlib

    titles = [describe(seen, config) for seen in survey.images[: len(pixels)]]
    heading = f"Token depth over {len(depth)} images"
    overview = draw_overview(folder / OVERVIEW, pixels, depth, config.num_steps, titles, heading)
    names = [Path(seen.image) for seen in survey.images[:count]]
    if not names:
        return [overview]
    return [overview, *draw_all(folder, names, pixels[:count], depth[:count], config.num_steps, titles)]


def class_name(index: int, config: Config) -> str:
    """Return the label of a class, or its index."""
    return config.labels[index] if config.labels else str(index)


def describe(seen: Seen, config: Config) -> str:
    """Return the predicted class and, if it differs, the label."""
    text = f"predicted {class_name(seen.predicted, config)}"
    if seen.label is None or seen.label == seen.predicted:
        return text
    return f"{text}, is {class_name(seen.label, config)}"
