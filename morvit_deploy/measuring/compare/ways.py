"""Other ways to run a bundle's model, as further rows: masked as in training, PyTorch, OpenVINO, precisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from morvit_deploy.errors import BundleError, ConfigError, MorvitError
from morvit_deploy.keywords import did_you_mean
from morvit_deploy.measuring.compare.candidates import (
    FORM,
    Candidate,
    bundle_candidates,
    graph_of,
    in_another_runtime,
)
from morvit_deploy.measuring.compare.results.rows import NotMeasured
from morvit_deploy.measuring.compare.running.runtimes import COMPILE, EAGER, OPENVINO, check_installed
from morvit_deploy.measuring.core.inputs import Source, Subject

MASKED = "masked"
SMALLER = ("fp16", "int8", "w8", "w4")  # precisions of target onnx beside fp32
WAYS = (MASKED, EAGER, COMPILE, OPENVINO, *SMALLER)
OF_CHECKPOINT = (MASKED, EAGER, COMPILE, *SMALLER)


def check_ways(ways: Sequence[str], checkpoint: Path | None) -> None:
    """ConfigError for a way that there is not, or that requires the checkpoint where none is given."""
    for way in ways:
        if way not in WAYS:
            raise ConfigError(
                f"with: got {way!r}, expected some of {', '.join(WAYS)}{did_you_mean(way, WAYS)}"
            )
    needing = [way for way in ways if way in OF_CHECKPOINT]
    if needing and checkpoint is None:
        raise ConfigError(
            f"with: {', '.join(needing)} run the checkpoint; give the one that the first bundle was made from "
            "(--checkpoint)"
        )
    if checkpoint is not None and not needing:
        raise ConfigError(
            f"checkpoint: is for the rows {', '.join(OF_CHECKPOINT)}; name some of them (--with), or leave it out"
        )


def ways_of(
    first: tuple[Candidate, Subject],
    ways: Iterable[str],
    checkpoint: Path | None,
    source: Source,
    scratch: Path,
    tell: Callable[[str], None],
) -> Iterator[Candidate | NotMeasured]:
    """A candidate for each way, or the reason why there is none; `source` are the pictures of the bundles."""
    candidate, subject = first
    if checkpoint is not None:
        _check_same(subject, checkpoint)
    for way in ways:
        try:
            yield _way(candidate, subject, way, checkpoint, source, scratch, tell)
        except MorvitError as error:
            yield NotMeasured(f"{candidate.name} ({way})", str(error))


def _way(
    candidate: Candidate,
    subject: Subject,
    way: str,
    checkpoint: Path | None,
    source: Source,
    scratch: Path,
    tell: Callable[[str], None],
) -> Candidate:
    if way == OPENVINO:
        check_installed(way)
        return in_another_runtime(candidate, way, graph_of(subject.bundle, subject.manifest))
    assert checkpoint is not None
    if way in SMALLER:
        return _smaller(candidate, subject, way, checkpoint, source, scratch, tell)
    masked = _masked(candidate, checkpoint, source, scratch, tell)
    if way == MASKED:
        return masked
    return replace(
        in_another_runtime(masked, way, checkpoint), name=f"{candidate.name} ({way})", file_bytes=None
    )


def _masked(
    candidate: Candidate, checkpoint: Path, source: Source, scratch: Path, tell: Callable[[str], None]
) -> Candidate:
    """The checkpoint exported as training code would export it, fed with the pictures of the bundle."""
    from morvit_deploy.exporters.api import export

    folder = scratch / MASKED
    if not folder.exists():
        tell("exporting the checkpoint with every token in every layer")
        export(checkpoint, folder, form="masked")
    return _form(candidate, MASKED, folder, source, scratch)


def _form(candidate: Candidate, way: str, folder: Path, source: Source, scratch: Path) -> Candidate:
    """The row of a bundle of the same checkpoint; its pixels are in a folder of their own."""
    pixels = scratch / f"{way}.pixels"
    pixels.mkdir(exist_ok=True)
    ((found, _),) = bundle_candidates([folder], source, pixels)
    return replace(found, name=f"{candidate.name} ({way})", kind=FORM, published=None)


def _smaller(
    candidate: Candidate,
    subject: Subject,
    precision: str,
    checkpoint: Path,
    source: Source,
    scratch: Path,
    tell: Callable[[str], None],
) -> Candidate:
    """The checkpoint in another precision, for the same batch and plan, calibrated and fed with the same pictures.

    Where it misses its gate, it is measured with a warning: its time is the same.
    """
    from morvit_deploy.exporters.api import export

    tell(f"exporting the checkpoint in {precision}")
    of_bundle = subject.manifest
    asked: Any = precision  # one of the target's
    dispatch: Any = of_bundle.dispatch if of_bundle.plan.adaptive else None  # graph or host
    done = export(
        checkpoint, scratch / precision, target=of_bundle.target, precision=asked, batch=of_bundle.batch,
        plan=of_bundle.plan, dispatch=dispatch, images=source.images,
        upscale=source.upscale, exif=source.exif, allow_worse=True,
    )  # fmt: skip  # three lines read better than eleven
    return replace(_form(candidate, precision, done.folder, source, scratch), remarks=done.warnings)


def _check_same(subject: Subject, checkpoint: Path) -> None:
    from morvit_deploy.model.checkpoint import fingerprint, load_checkpoint

    load_checkpoint(checkpoint)  # raises its own errors
    if (found := fingerprint(checkpoint)) != subject.manifest.checkpoint.sha256:
        raise BundleError(
            f"{subject.bundle} was made from another checkpoint (sha256 {subject.manifest.checkpoint.sha256[:12]}…) "
            f"than {checkpoint} ({found[:12]}…); give the one that it was exported from"
        )
