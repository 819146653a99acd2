"""The shape of a model's images: which image size, patch stride and tokens before the patches fit its positions.

The tensors do not determine it: 17 rows are 4×4 patches and CLS, or 2×8 patches and CLS; 50 rows are 7×7 patches side
by side, or overlapping patches of a smaller image. The size is read from the files or must be given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from morvit_deploy.errors import ConfigError
from morvit_deploy.sources.settings.given import Questions

Edges = tuple[int, int]  # height and width, in pixels
PUBLISHED = (224, 384, 448, 512)  # image sizes of published ViTs


@dataclass(frozen=True)
class Rows:
    """The rows of the position embeddings of a model with square patches of `patch` pixels."""

    count: int
    patch: int
    special: int  # tokens before the patches that may have positions: CLS and registers
    name: str = "pos_embed"  # in the source
    stride: int | None = None  # if it is known: then patches need not end at the edge

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Numbers of rows that may come before those of the patches: some models have positions for patches only."""
        return tuple(dict.fromkeys((self.special, 0)))

    def at(self, size: Edges) -> list[Reading]:
        """Return the readings at a known image size; patches side by side come first."""
        found = []
        for stride in range(self.patch, 0, -1):
            exact = all((edge - self.patch) % stride == 0 for edge in size)
            if min(size) >= self.patch and (exact or stride == self.stride):
                high, wide = ((edge - self.patch) // stride + 1 for edge in size)
                if (before := self.count - high * wide) in self.prefixes:
                    found.append(Reading(size, (high, wide), stride, self.patch, before))
        return found

    def side_by_side(self) -> Iterator[Reading]:
        """Yield the readings with patches side by side, those that are most nearly square first."""
        grids = []
        for patches in (self.count - prefix for prefix in self.prefixes):
            grids += [
                (n, patches // n) for n in range(1, math.isqrt(max(patches, 0)) + 1) if patches % n == 0
            ]
        for high, wide in sorted(grids, key=lambda grid: grid[1] / grid[0]):
            size = (high * self.patch, wide * self.patch)
            yield Reading(size, (high, wide), self.patch, self.patch, self.count - high * wide)


@dataclass(frozen=True)
class Reading:
    """An image size (height, width) in pixels, its grid of patches, and the pixels from one patch to the next."""

    size: Edges
    grid: Edges
    stride: int
    patch: int
    before: int  # rows before those of the patches

    @property
    def is_square(self) -> bool:
        """Whether images are square, with patches side by side."""
        return self.size[0] == self.size[1] and self.stride == self.patch

    def __str__(self) -> str:
        every = f", one every {self.stride} pixels" if self.stride != self.patch else ""
        without = "" if self.before else ", none for CLS"
        return f"{said(self.size)} ({self.grid[0]}×{self.grid[1]} patches{every}{without})"


def said(size: Edges) -> str:
    """Return a size as an option takes it: N or HxW."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def settle_shape(rows: Rows, questions: Questions, stored: Mapping[str, Edges]) -> Reading:
    """Return the shape in training, as given or as `stored` in the files (origin -> size), or ask for it.

    Raises ConfigError for a given size that does not fit. If the question is open, one that fits is returned, and
    `Questions.close` raises.
    """
    origin, readings = _known(rows, questions, stored)
    if not readings:
        return _asked(rows, questions, stored)
    reading = _at_stride(rows, readings, questions)
    size = reading.size
    questions.note("image_size", size[0] if size[0] == size[1] else said(size), origin)
    if reading.stride != rows.patch and rows.stride is None:
        questions.note("patch_stride", reading.stride, f"{rows.count} position embeddings at {said(size)}")
    return reading


def _known(rows: Rows, questions: Questions, stored: Mapping[str, Edges]) -> tuple[str, list[Reading]]:
    """Return where the size of training was read, and its readings; none if it is not known."""
    trained, wanted = questions.given.edges("trained_size"), questions.given.edges("image_size")
    fitting = {origin: size for origin, size in stored.items() if rows.at(size)}
    if trained is None:
        for origin, size in fitting.items():
            return origin, rows.at(size)
        readings = [] if wanted is None else rows.at(wanted)
        # overlapping patches of this size, or another size in training: `_asked` names both
        unsaid = rows.stride is None and all(one.stride != rows.patch for one in readings)
        return "--image-size", [] if unsaid else readings
    if not rows.at(trained):
        raise ConfigError(f"--trained-size: got {said(trained)}, which does not fit: {_fitting(rows, [])}")
    questions.note("trained_size", said(trained), "command line, --trained-size")
    questions.conflicts += [
        f"--trained-size: got {said(trained)}, expected {said(size)} as in {origin}; omit the option"
        for origin, size in fitting.items()
        if size != trained
    ]
    return "--trained-size", rows.at(trained)


def _at_stride(rows: Rows, readings: list[Reading], questions: Questions) -> Reading:
    """Return the reading with the known stride; if several fit and none is known, ask for it."""
    stride = rows.stride
    if stride is None:
        if len(readings) > 1:
            hint = "; ".join(f"{one.stride} if image size {one}" for one in readings)
            questions.ask("patch_stride", hint, "N")
        return readings[0]
    if questions.given.patch_stride is not None:
        questions.note("patch_stride", stride, "command line, --patch-stride")
    for one in readings:
        if one.stride == stride:
            return one
    strides = " or ".join(str(one.stride) for one in readings)
    raise ConfigError(f"--patch-stride: got {stride}, expected {strides} at image size {readings[0]}")


def _asked(rows: Rows, questions: Questions, stored: Mapping[str, Edges]) -> Reading:
    """Ask for the size of training with the readings that fit; returns the most nearly square one."""
    square = min(rows.side_by_side(), key=lambda one: not one.is_square)
    wanted = questions.given.edges("image_size")
    unfit = [f"{said(size)} in {origin} does not fit: " for origin, size in stored.items()]
    overlapping = []
    if wanted is not None:
        overlapping = rows.at(wanted)
        unfit += [] if overlapping else [f"{said(wanted)} is another size than in training: "]
        questions.note("image_size", said(wanted), "command line, --image-size")
    name = "image_size" if wanted is None else "trained_size"
    questions.ask(name, f"{''.join(unfit)}{_fitting(rows, overlapping)}", _example(square))
    return square


def _fitting(rows: Rows, more: list[Reading]) -> str:
    """Return the readings that fit: the square ones, the oblong one that is most nearly square, and `more`."""
    readings = list(rows.side_by_side())
    shown = [one for one in readings if one.is_square] + [one for one in readings if not one.is_square][:1]
    return f"{rows.count} positions fit {', '.join(map(str, [*shown, *more]))} or another HxW"


def _example(square: Reading) -> str:
    """Return the size to paste: that of a published ViT, otherwise a placeholder."""
    return said(square.size) if square.is_square and square.size[0] in PUBLISHED else "N"
