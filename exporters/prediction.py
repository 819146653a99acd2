"""`predict` as a Python function: the classes of pictures, and what routed them. No torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import AT_A_TIME, Arrays
from morvit_deploy.bundle.listing import list_pictures
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, read_image
from morvit_deploy.bundle.session import Guess, Session, guesses_of
from morvit_deploy.bundle.views import prediction_table
from morvit_deploy.errors import AnswerError, ImageError, IncompleteError, MorvitError, TargetError, listed
from morvit_deploy.exporters.targets import issue_warnings, open_session
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.model.answers.heads import PLAIN, SIGMOID
from morvit_deploy.report import Picture, Report, Shown, numbered

DRAWN = 8  # pictures of an overview
LISTED = 10  # reasons that a message lists


@dataclass(frozen=True)
class Prediction(Shown):
    """What a bundle returned for one picture.

    Probabilities are those of the head: of a softmax head they sum to 1; of a sigmoid head each class has its own.
    """

    image: Path
    bucket: str  # that ran it
    top: tuple[Guess, ...]  # the most probable classes, best first
    logits: NDArray[np.float32] = field(compare=False)  # (classes,)
    depth: NDArray[np.integer[Any]] | None = field(compare=False)  # (N,) steps that each patch token ran
    manifest: Manifest = field(compare=False)
    upscale: bool = False  # were smaller images enlarged?
    exif: bool = False  # was it turned by its EXIF orientation?
    # what a bundle exported with output features (dim,) or tokens (N, dim) returned, instead of logits and classes
    features: NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """The most probable class; of a head without activation, the one of the largest output."""
        if not self.top:
            raise TargetError(f"the bundle returns {self.manifest.output}, not classes: read `features`")
        return self.top[0].label

    @property
    def probability(self) -> float:
        """Of that class."""
        return self.top[0].probability if self.label else 0.0

    @property
    def present(self) -> tuple[Guess, ...]:
        """What the head decides for, best first: the best class of a softmax head, or every class of a sigmoid head
        whose probability is above one half.
        """
        if self.features is not None:
            return ()
        guesses = guesses_of(self.logits, self.manifest)
        if not self._is_sigmoid:
            return tuple(guesses[:1])
        return tuple(guess for guess in guesses if self.logits[guess.index] > 0)

    @property
    def named(self) -> str:
        """The classes that the head decides for, as text."""
        return ", ".join(guess.label for guess in self.present) or "no class"

    @property
    def pixels(self) -> Pixels:
        """What the bundle was fed, uint8 (height, width, 3), read again from the file."""
        size, how = self.manifest.config.image_size, {"upscale": self.upscale, "exif": self.exif}
        return read_image(self.image, self.manifest.preprocess, size, **how)

    def __repr__(self) -> str:
        how = ".4g" if self._has_values else ".1%"
        classes = ", ".join(f"{guess.label!r} {guess.probability:{how}}" for guess in self.present)
        return f"Prediction({str(self.image)!r}, {classes or 'no class'}, bucket {self.bucket!r})"

    def depth_map(self) -> bytes:
        """The picture beside its depth map, as a PNG file; TargetError where the bundle returns no depth."""
        from morvit_deploy.inspecting.depth_maps import depth_png  # loads matplotlib

        steps = self.manifest.config.num_steps
        return depth_png(self.image.name, self.pixels, self._known_depth(), steps, f"predicted {self.named}")

    def report(self) -> Report:
        """The classes, and the depth map where there is one."""
        parts: list[Any] = [prediction_table([self.as_dict()])]
        if self.features is not None:
            return Report("Prediction", parts, f"{self.manifest.output} of {self.image.name}.")
        if self.depth is not None:
            parts.append(Picture("Depth map", Path("depth.png"), content=self.depth_map()))
        return Report("Prediction", parts, f"{self.image.name} is {self.label}.")

    def as_dict(self) -> dict[str, Any]:
        """As `predict --json` prints it; with a sigmoid head, `present` lists every class above one half."""
        if self.features is not None:
            shape = list(self.features.shape)
            return {
                "image": str(self.image),
                "bucket": self.bucket,
                "output": self.manifest.output,
                "shape": shape,
            }
        present = {"present": [asdict(guess) for guess in self.present]} if self._is_sigmoid else {}
        return {
            "image": str(self.image),
            "bucket": self.bucket,
            "top": [_valued(guess) if self._has_values else asdict(guess) for guess in self.top],
        } | present

    @property
    def _has_values(self) -> bool:
        """Whether the head has no activation, so that its outputs are no probabilities."""
        return self.manifest.config.head_activation == PLAIN

    @property
    def _is_sigmoid(self) -> bool:
        return self.manifest.config.head_activation == SIGMOID

    def _known_depth(self) -> NDArray[np.integer[Any]]:
        if self.depth is None:
            raise TargetError("the bundle returns no depth; export it again with with_depth=True")
        return self.depth


def _valued(guess: Guess) -> dict[str, Any]:
    """An output of a head without activation."""
    return {"index": guess.index, "label": guess.label, "value": guess.probability}


@dataclass(frozen=True)
class Failure:
    """An image that has no prediction, and why."""

    image: Path
    error: ImageError | AnswerError

    def as_dict(self) -> dict[str, str]:
        """As `predict --json` prints it."""
        return {"image": str(self.image), "error": str(self.error)}


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
    exif: bool = False,
) -> Predictions:
    """Classify pictures with a bundle, or with one that is open already; no PyTorch is loaded.

    `images` is a file or a folder, or several of them. Each prediction has the `top` most probable classes, the
    logits, the bucket that ran it and, of a bundle exported with `with_depth`, the depth of each patch token. Of a
    bundle exported with output features or tokens, it has `features` instead of classes and logits.
    With `exif`, pictures are turned by their EXIF orientation.

    Raises BundleError, TargetError, and ImageError where no image can be read. If only some have no prediction, the
    others are still classified, and an IncompleteError has them in `partial`.

    >>> for one in md.predict("build/onnx", "photos", top=3):
    ...     print(one.image, one.label, one.probability)
    """
    opened = nullcontext(bundle) if isinstance(bundle, Session) else open_session(bundle, threads=threads)
    if isinstance(opened, Session):
        issue_warnings(opened, decorators=1)
    paths, _ = pictures_in([images] if isinstance(images, (str, Path)) else images)
    found: list[Prediction] = []
    failures: list[Failure] = []
    with opened as session:
        for one in answers(session, paths, top=top, upscale=upscale, exif=exif):
            found.append(one) if isinstance(one, Prediction) else failures.append(one)
    if failures:
        raise why_incomplete(failures, len(found), Predictions(found))
    return Predictions(found)


def pictures_in(images: Sequence[str | Path]) -> tuple[list[Path], Counter[str]]:
    """The files that are meant, and how many others were skipped for which reason.

    A folder stands for the pictures in it, or for itself if there are none.
    """
    paths: list[Path] = []
    skipped: Counter[str] = Counter()
    for image in map(Path, images):
        listing = list_pictures(image) if os.path.isdir(image) else None  # noqa: PTH112  # False for a long name
        paths += (listing and listing.files) or (image,)
        skipped += listing.skipped if listing else Counter()
    return paths, skipped


def answers(
    session: Session, paths: Sequence[Path], *, top: int = 5, upscale: bool = False, exif: bool = False
) -> Iterator[Prediction | Failure]:
    """A prediction of each picture, or why there is none, in order; a few are read at a time."""
    for start in range(0, len(paths), AT_A_TIME):
        part = paths[start : start + AT_A_TIME]
        read = [_read(session, path, upscale, exif) for path in part]
        pixels = [one for one in read if not isinstance(one, Failure)]
        outputs = session.run(np.stack(pixels)) if pixels else {}
        rows = iter(range(len(pixels)))
        for path, one in zip(part, read, strict=True):
            yield (
                one
                if isinstance(one, Failure)
                else _answer(session, path, outputs, next(rows), top, upscale, exif)
            )


def why_incomplete(
    failures: Sequence[Failure], others: int = 0, partial: Predictions | None = None
) -> MorvitError:
    """The error of pictures without a prediction; if there are no others, that of the pictures or the runtime."""
    reasons = [str(one.error) for one in failures]
    unread = all(isinstance(one.error, ImageError) for one in failures)
    what = "read" if unread else "classified"
    if others:
        error = IncompleteError(
            f"{len(failures)} of {others + len(failures)} images could not be {what}:\n{listed(reasons, LISTED)}"
        )
        error.partial = partial
        return error
    kind = ImageError if unread else AnswerError
    return kind(reasons[0] if len(reasons) == 1 else f"no image could be {what}:\n{listed(reasons, LISTED)}")


def _read(session: Session, path: Path, upscale: bool, exif: bool) -> Pixels | Failure:
    try:
        if os.path.isdir(path):  # noqa: PTH112  # False for a name that is too long, too
            raise ImageError(f"{path} is a folder without images")
        return session.read(path, upscale=upscale, exif=exif)
    except ImageError as error:
        return Failure(path, error)


def _answer(
    session: Session, path: Path, outputs: Arrays, row: int, top: int, upscale: bool, exif: bool
) -> Prediction | Failure:
    try:
        session.check_answer(outputs, row)
        bucket = session.bucket_of(outputs, row)
    except AnswerError as error:
        return Failure(path, AnswerError(f"{path}: {error}"))
    name = session.manifest.output
    answer = outputs[name][row]
    logits = answer if name == "logits" else np.empty(0, dtype=np.float32)
    features = None if name == "logits" else answer
    depth = outputs["depth"][row] if "depth" in outputs else None
    guesses = tuple(session.guesses(logits, top)) if features is None else ()
    return Prediction(path, bucket, guesses, logits, depth, session.manifest, upscale, exif, features)


def _overview(predictions: list[Prediction]) -> bytes:
    from morvit_deploy.inspecting.depth_maps import overview_png  # loads matplotlib

    shown = predictions[:DRAWN]
    pixels, titles = np.stack([one.pixels for one in shown]), [f"predicted {one.named}" for one in shown]
    depth = np.stack([one.depth for one in predictions if one.depth is not None])
    heading = f"Token depth over {numbered(len(depth), 'image')}"
    return overview_png(pixels, depth, shown[0].manifest.config.num_steps, titles, heading)
