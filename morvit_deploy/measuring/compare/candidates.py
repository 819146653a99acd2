"""What is to be measured: bundles, baselines, other ways to run a bundle's model. Each is a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.errors import MorvitError, TargetError
from morvit_deploy.exporters.onnx.graphs.names import GRAPH
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.measuring.compare.baselines.names import Baseline
from morvit_deploy.measuring.compare.baselines.published import (
    PLAIN,
    PRESET,
    Published,
    of_baseline,
    of_bundle,
)
from morvit_deploy.measuring.compare.running.runtimes import COMPILE, EAGER, ONNX_RUNTIME, taken_by
from morvit_deploy.measuring.core.inputs import IMAGES, Source, Subject, in_rounds, prepare
from morvit_deploy.measuring.core.parity import expected_answers
from morvit_deploy.measuring.cpu.process import BundleProcess, LocalProcess, open_here
from morvit_deploy.model.config import Config
from morvit_deploy.model.presets import preset

BUNDLE, BASELINE, FORM = "bundle", "baseline", "form"  # kinds; a form is another way to run a bundle's model
_COMMAND = ("-m", "morvit_deploy.measuring.compare.running.worker")
_NOT_ARCHITECTURE = {"preprocess", "labels", "thresholds"}


@dataclass(frozen=True)
class Candidate:
    """One row to be, and `open(threads)`, which starts its process."""

    name: str
    kind: str
    runtime: str
    precision: str
    image: int | tuple[int, int]  # pixels; (height, width) if they differ
    parameters: int | None
    macs: Mapping[str, int] | None  # of one image, by bucket; one entry where there is no choice
    file_bytes: int | None
    open: Callable[[int], BundleProcess]
    pixels: Path
    stream: range | None = None  # rounds of a block of an adaptive bundle
    expected: Callable[[], NDArray[np.float32]] | None = (
        None  # logits to compare with before anything is timed
    )
    activation: str = "softmax"
    open_batches: Callable[[int], LocalProcess] | None = None  # the same for any number of pictures at once
    one_at_a_time: str = ""  # why there is none
    remarks: tuple[str, ...] = ()  # warnings of its export
    published: Published | None = None


class GraphProcess(LocalProcess):
    """A graph or a checkpoint in one runtime."""

    def __init__(self, runtime: str, path: Path, pixels: Path, threads: int) -> None:
        super().__init__([*_COMMAND, runtime, str(path), str(pixels), str(threads)], str(path))


def bundle_candidates(
    folders: Sequence[Path], source: Source, scratch: Path
) -> list[tuple[Candidate, Subject]]:
    """Of classifiers of one target at batch 1; TargetError for others, and for what this machine does not run."""
    one_image = replace(source, batch=1)
    subjects = [prepare(folder, one_image, scratch / f"bundle{i}.npy") for i, folder in enumerate(folders)]
    _check_target(subjects)
    return [(_of_bundle(subject), subject) for subject in subjects]


def _check_target(subjects: Sequence[Subject]) -> None:
    found = {subject.manifest.target: str(subject.bundle) for subject in subjects}
    if len(found) > 1:
        listed = ", ".join(f"{bundle} is for {target}" for target, bundle in found.items())
        raise TargetError(
            f"compare measures bundles of one target in one runtime: {listed}; export them to the same target"
        )
    (target,) = found
    if find_target(target).profiled is None:
        raise TargetError(
            f"compare measures in ONNX Runtime, as the baselines are ONNX graphs; got target {target!r}, so export "
            "with --target onnx, or measure the bundle alone with `morvit-deploy bench`"
        )
    for subject in subjects:
        if (output := subject.manifest.output) != "logits":
            raise TargetError(
                f"compare measures classifiers; {subject.bundle} returns {output}: export it without --output, or "
                "measure it alone with `morvit-deploy bench`"
            )


def _of_bundle(subject: Subject) -> Candidate:
    manifest = subject.manifest
    return Candidate(
        name=str(subject.bundle),
        kind=BUNDLE,
        runtime=ONNX_RUNTIME,
        precision=manifest.precision,
        image=manifest.config.image_size,
        parameters=manifest.checkpoint.parameters,
        macs=dict(manifest.macs),
        file_bytes=sum(file.bytes for file in manifest.files),
        open=lambda threads: open_here(subject, threads),
        pixels=subject.pixels,
        stream=subject.stream,
        expected=lambda: expected_answers(subject),
        activation=manifest.config.head_activation,
        published=of_bundle(manifest.config.record.method, preset_of(manifest.config)),
        open_batches=(lambda threads: open_here(subject, threads)) if manifest.batch == "dynamic" else None,
        one_at_a_time="exported for batch 1",
    )


def preset_of(config: Config) -> str | None:
    """The preset of `init` that has this architecture, of those that papers publish figures of."""
    own = config.model_dump(exclude=_NOT_ARCHITECTURE)
    same = (name for name in (PRESET, PLAIN) if preset(name).model_dump(exclude=_NOT_ARCHITECTURE) == own)
    return next(same, None)


def baseline_candidate(
    baseline: Baseline, seed: int, folder: Path, scratch: Path, number: int, *, batches: bool = False
) -> Candidate:
    """Of a baseline, which is exported to `folder` unless it is an ONNX file or already there.

    With `batches`, another file of it takes any number of pictures at once.
    """
    from morvit_deploy.measuring.compare.baselines.graph_facts import graph_facts

    if baseline.path is not None and baseline.kind == "file":
        graph, parameters = baseline.path, None
        side, any_batch = taken_by(graph)
        batched, why = graph if any_batch else None, "the file takes one picture at a time"
    else:
        from morvit_deploy.measuring.compare.baselines.exporting import exported

        found = exported(baseline, seed, folder)
        graph, parameters, side = found.graph, found.parameters, found.size
        batched, why = _in_batches(baseline, seed, folder) if batches else (None, "")
    facts = graph_facts(graph)
    pixels = scratch / f"baseline{number}.npy"
    np.save(pixels, in_rounds(synthetic_images(IMAGES, side), 1), allow_pickle=False)
    return Candidate(
        name=baseline.name,
        kind=BASELINE,
        runtime=ONNX_RUNTIME,
        precision="fp32",
        image=side,
        parameters=facts.parameters if parameters is None else parameters,
        macs=None if facts.macs is None else {"": facts.macs},
        file_bytes=facts.file_bytes,
        open=lambda threads: GraphProcess(ONNX_RUNTIME, graph, pixels, threads),
        pixels=pixels,
        published=of_baseline(baseline.name),
        open_batches=None
        if batched is None
        else lambda threads: GraphProcess(ONNX_RUNTIME, batched, pixels, threads),
        one_at_a_time=why,
    )


def _in_batches(baseline: Baseline, seed: int, folder: Path) -> tuple[Path | None, str]:
    """The baseline's file for any number of pictures, or None and the reason why there is none."""
    from morvit_deploy.measuring.compare.baselines.exporting import exported

    try:
        return exported(baseline, seed, folder, any_batch=True).graph, ""
    except MorvitError as error:
        return None, str(error)


def in_another_runtime(like: Candidate, runtime: str, path: Path) -> Candidate:
    """The model of a bundle in another runtime: OpenVINO of its graph, or PyTorch of its checkpoint."""
    return replace(
        like,
        name=f"{like.name} ({runtime})",
        kind=FORM,
        runtime=runtime,
        stream=None,
        published=None,
        open=lambda threads: GraphProcess(runtime, path, like.pixels, threads),
        open_batches=_batches_in(like, runtime, path),
        one_at_a_time="each batch would be compiled anew" if runtime == COMPILE else like.one_at_a_time,
    )


def _batches_in(like: Candidate, runtime: str, path: Path) -> Callable[[int], LocalProcess] | None:
    """PyTorch runs a checkpoint in any batch, and a graph takes what it was exported for."""
    if runtime == COMPILE or (runtime != EAGER and like.open_batches is None):
        return None
    return lambda threads: GraphProcess(runtime, path, like.pixels, threads)


def graph_of(folder: Path, manifest: Manifest) -> Path:
    """The only graph file of a bundle; TargetError where there are several."""
    if manifest.dispatch != "single":
        raise TargetError(
            f"{folder} has {manifest.described}; expected one bucket, as OpenVINO runs one graph"
        )
    return folder / GRAPH
