"""A model's results on the images of a folder: classes and token depths, and their pictures. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.calibration.adaptivity.rule import Adaptivity
from morvit_deploy.files import is_own_png, write_bytes
from morvit_deploy.inspecting.baseline import Baseline
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
    random: int | None = (
        None  # predicted class under random selection of as many tokens; None without routing
    )


@dataclass(frozen=True)
class Survey:
    """The reference's results on a folder of images."""

    images: tuple[Seen, ...]
    mean_tokens: tuple[float, ...]  # routed tokens that run each step
    histogram: tuple[float, ...]  # fraction of patch tokens at depth 0, 1, … num_steps
    assessment: Assessment | None  # None without routing
    pictures: tuple[str, ...] = ()
    baseline: Baseline | None = None  # learned routing against random selection; None without routing
    adaptivity: Adaptivity | None = None  # whether adaptive depth can pay; None without routing

    def __repr__(self) -> str:
        top1 = "" if self.top1 is None else f", top-1 {self.top1:.1%}"
        depth = "" if self.assessment is None else f", mean depth {self.mean_depth:.2f}"
        routing = ", routing degenerate" if self.assessment and self.assessment.degenerate else ""
        return f"Survey({len(self.images)} images{top1}{depth}{routing})"

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
            "baseline": self.baseline and self.baseline.as_dict(),
            "adaptivity": self.adaptivity and self.adaptivity.as_dict(),
            "pictures": list(self.pictures),
            "images": [asdict(seen) for seen in self.images],
        }


@dataclass(frozen=True)
class DepthMaps:
    """What depth maps are drawn from."""

    pixels: Pixels  # uint8 (m, h, w, 3) of the first m images
    depth: Depth  # (n, N) of all
    groups: Depth | None = (
        None  # (m, N) where tokens merge: the number of the token that each patch is part of
    )


def draw_survey(folder: Path, survey: Survey, config: Config, maps: DepthMaps, count: int) -> list[Path]:
    """Write the overview and the heat maps of the first `count` images; returns the files."""
    from morvit_deploy.inspecting.depth_maps import draw_all  # only here: loads matplotlib

    overview = folder / OVERVIEW
    write_bytes(overview, survey_png(survey, config, maps), replaces=is_own_png)
    names = [Path(seen.image) for seen in survey.images[:count]]
    if not names:
        return [overview]
    pixels, depth, titles = maps.pixels[:count], maps.depth[:count], _titles(survey, config, maps)
    files = [overview, *draw_all(folder, names, pixels, depth, config.num_steps, titles)]
    if maps.groups is None:
        return files
    from morvit_deploy.inspecting.group_maps import draw_groups

    return [*files, *draw_groups(files[1:], pixels, maps.groups[:count])]


def survey_png(survey: Survey, config: Config, maps: DepthMaps) -> bytes:
    """The overview: the first images with their depth maps, and the depths of all."""
    from morvit_deploy.inspecting.depth_maps import overview_png  # only here: loads matplotlib

    heading = f"Token depth over {len(maps.depth)} images"
    titles = _titles(survey, config, maps)
    return overview_png(maps.pixels, maps.depth, config.num_steps, titles, heading)


def _titles(survey: Survey, config: Config, maps: DepthMaps) -> list[str]:
    return [describe(seen, config) for seen in survey.images[: len(maps.pixels)]]


def class_name(index: int, config: Config) -> str:
    """Return the label of a class, or its index."""
    return config.labels[index] if config.labels else str(index)


def describe(seen: Seen, config: Config) -> str:
    """Return the predicted class and, if it differs, the label."""
    text = f"predicted {class_name(seen.predicted, config)}"
    if seen.label is None or seen.label == seen.predicted:
        return text
    return f"{text}, is {class_name(seen.label, config)}"
