"""`predict` as a Python function: the classes of pictures, and what routed them. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import AT_A_TIME
from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, read_image
from morvit_deploy.bundle.session import Guess, Session
from morvit_deploy.bundle.views import prediction_table
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.report import Picture, Report, Shown, numbered

DRAWN = 8  # pictures of an overview


@dataclass(frozen=True)
class Prediction(Shown):
    """What a bundle returned for one picture."""

    image: Path
    bucket: str  # that ran it
    top: tuple[Guess, ...]  # the most probable classes, best first
    logits: NDArray[np.float32] = field(compare=False)  # (classes,)
    depth: NDArray[np.integer[Any]] | None = field(compare=False)  # (N,) steps that each patch token ran
    manifest: Manifest = field(compare=False)
    upscale: bool = False  # were smaller images enlarged?

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top[0].label

    @property
    def probability(self) -> float:
        """Of that class."""
        return self.top[0].probability

    @property
    def pixels(self) -> Pixels:
        """What the bundle was fed, uint8 (height, width, 3), read again from the file."""
        return read_image(
            self.image, self.manifest.preprocess, self.manifest.config.image_size, upscale=self.upscale
        )

    def __repr__(self) -> str:
        return (
            f"Prediction({str(self.image)!r}, {self.label!r} {self.probability:.1%}, bucket {self.bucket!r})"
        )

    def depth_map(self) -> bytes:
        """The picture beside its depth map, as a PNG file; TargetError where the bundle returns no depth."""
        from morvit_deploy.inspecting.depth_maps import depth_png  # loads matplotlib

        steps = self.manifest.config.num_steps
        return depth_png(self.image.name, self.pixels, self._known_depth(), steps, f"predicted {self.label}")

    def report(self) -> Report:
        """The classes, and the depth map where there is one."""
        parts: list[Any] = [prediction_table([self.as_dict()])]
        if self.depth is not None:
            parts.append(Picture("Depth map", Path("depth.png"), content=self.depth_map()))
        return Report("Prediction", parts, f"{self.image.name} is {self.label}.")

    def as_dict(self) -> dict[str, Any]:
        """As `predict --json` prints it."""
        return {
            "image": str(self.image),
            "bucket": self.bucket,
            "top": [asdict(guess) for guess in self.top],
        }

    def _known_depth(self) -> NDArray[np.integer[Any]]:
        if self.depth is None:
            raise TargetError("the bundle returns no depth; export it again with with_depth=True")
        return self.depth


class Predictions(tuple[Prediction, ...], Shown):
    """A prediction for each picture, in order."""

    def __repr__(self) -> str:
        first = f"{self[0]!r}, …" if len(self) > 1 else ", ".join(map(repr, self))
        return f"Predictions({numbered(len(self), 'image')}: {first})"

    def report(self) -> Report:
        """A row for each picture, and the depth maps of the first ones."""
        parts: list[Any] = [prediction_table([one.as_dict() for one in self])]
        shown = [one for one in self if one.depth is not None]
        if shown:
            parts.append(Picture("Depth maps", Path("depth.png"), content=_overview(shown)))
        return Report("Predictions", parts, f"{numbered(len(self), 'image')} classified.")


@checks_keywords()
def predict(
    bundle: str | Path | Session,
    images: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    threads: int | None = None,
    upscale: bool = False,
) -> Predictions:
    """Classify pictures with a bundle, or with one that is open already; no PyTorch is loaded.

    `images` is a file, several, or a folder. Each prediction has the `top` most probable classes, the logits, the
    bucket that ran it and, where the bundle was exported with `with_depth`, the depth of each patch token.
    Raises BundleError, TargetError or ImageError.

    >>> for one in md.predict("build/onnx", "photos", top=3):
    ...     print(one.image, one.label, one.probability)
    """
    opened = nullcontext(bundle) if isinstance(bundle, Session) else open_bundle(bundle, threads=threads)
    with opened as session:
        paths = _files(images, session.manifest)
        parts = (paths[start : start + AT_A_TIME] for start in range(0, len(paths), AT_A_TIME))
        return Predictions(one for part in parts for one in _predicted(session, part, top, upscale))


def classified(
    session: Session, paths: Sequence[Path], pixels: Sequence[Pixels], top: int, upscale: bool
) -> Iterator[Prediction]:
    """The predictions of pictures that have been read, in one run; pixels uint8 (height, width, 3) each."""
    outputs = session.run(np.stack(pixels))
    buckets = [bucket.name for bucket in session.manifest.plan.buckets]
    numbers = outputs.get("bucket", np.zeros(len(paths), dtype=np.int32))
    for i, path in enumerate(paths):
        logits = outputs["logits"][i]
        depth = outputs["depth"][i] if "depth" in outputs else None
        guesses = tuple(session.guesses(logits, top))
        yield Prediction(path, buckets[numbers[i]], guesses, logits, depth, session.manifest, upscale)


def _files(images: str | Path | Sequence[str | Path], manifest: Manifest) -> list[Path]:
    """The files that are meant; of a folder all pictures in it."""
    if not isinstance(images, (str, Path)):
        return [Path(image) for image in images]
    if Path(images).is_dir():
        return [entry.path for entry in open_images(images, manifest.config).entries]
    return [Path(images)]


def _predicted(session: Session, paths: list[Path], top: int, upscale: bool) -> Iterator[Prediction]:
    return classified(session, paths, [session.read(path, upscale=upscale) for path in paths], top, upscale)


def _overview(predictions: list[Prediction]) -> bytes:
    from morvit_deploy.inspecting.depth_maps import overview_png  # loads matplotlib

    shown = predictions[:DRAWN]
    pixels, titles = np.stack([one.pixels for one in shown]), [f"predicted {one.label}" for one in shown]
    depth = np.stack([one.depth for one in predictions if one.depth is not None])
    heading = f"Token depth over {numbered(len(depth), 'image')}"
    return overview_png(pixels, depth, shown[0].manifest.config.num_steps, titles, heading)
